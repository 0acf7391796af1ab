"""The parts that several benchmarks use: contestants, workloads, load generators, the machine, and tables."""
