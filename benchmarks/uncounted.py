"""`python -m benchmarks.uncounted serve …`: the service as it is, but that it counts, measures and notes nothing."""

import sys
from typing import Any

from app.__main__ import cli
from app.api.guard.access import Gate
from app.metrics import Counter, Gauge, Histogram


def _nothing(*_given: Any, **_named: Any) -> None:
    """Stand for what would have been counted."""


if __name__ == "__main__":
    # Before any worker exists: they are forked from this process.
    for kind, name in ((Counter, "add"), (Gauge, "set"), (Histogram, "observe"), (Gate, "note")):
        setattr(kind, name, _nothing)
    sys.argv[0] = "uncounted"
    cli(prog_name="python -m benchmarks.uncounted")
