"""The machine that a process runs on: cores, memory, and folders of caches. It knows nothing of pictures."""
