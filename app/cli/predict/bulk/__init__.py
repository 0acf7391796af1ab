"""Classify any number of pictures into part files; a killed job resumes as if it had not been interrupted.

job      which pictures make a shard, what is done already, and who works on it
shard    one shard: read, answer, record in its journal, write its part
answers  pictures → answers, of any size and from anywhere: what an engine for many machines calls, too
journal  what became of each picture of a shard so far
parts    answers → Parquet, CSV or JSON lines
here     a model in this process; `service` asks one that is served
on_ray   the same shards as tasks in a Ray cluster
"""
