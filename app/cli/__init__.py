"""The command line's work: what `python -m app` does besides serving."""
