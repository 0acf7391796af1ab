"""Model stores in object storage: what a bucket holds, and this machine's copy of it, a folder that workers serve."""
