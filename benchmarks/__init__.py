"""Every contestant in one run: `python -m benchmarks run`, or `make benchmark`. README.md explains it."""
