"""Every contestant in one run: `python -m benchmarks run`, or `make benchmark`. README.md says what is measured."""
