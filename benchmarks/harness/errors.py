"""The errors of a benchmark.

BenchmarkError
├── NotBuilt           a contestant's environment cannot be installed
├── DidNotStart        it ended, or gave no answer in time
└── LoadFailed         the load generator ended without a result
"""


class BenchmarkError(Exception):
    """One sentence for the row or the terminal."""


class NotBuilt(BenchmarkError):
    pass


class DidNotStart(BenchmarkError):
    pass


class LoadFailed(BenchmarkError):
    pass
