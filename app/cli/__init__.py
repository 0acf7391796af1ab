"""The commands of `python -m app`, besides serving."""
