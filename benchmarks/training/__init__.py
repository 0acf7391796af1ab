"""Benchmarks of trained networks: accuracy and cost of presets."""
