"""Benchmarks of the data audit: recall and precision on planted defects."""
