"""Benchmarks of the running service: speed, memory, overload, protocols and swaps, beside its peers."""
