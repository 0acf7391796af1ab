"""Model stores in object storage: a bucket, and this machine's copy of it, a folder that workers serve."""
