"""Start the service without metrics and logs of answers: `python -m benchmarks.serving.uncounted serve …`."""

import sys
from typing import Any

from app.__main__ import cli
from app.api.guard.access import Gate
from app.metrics import Counter, Gauge, Histogram


def _nothing(*_given: Any, **_named: Any) -> None:
    """Stand in for the counting functions."""


if __name__ == "__main__":
    # Before any worker exists, because they are forked from this process.
    for kind, name in ((Counter, "add"), (Gauge, "set"), (Histogram, "observe"), (Gate, "note")):
        setattr(kind, name, _nothing)
    sys.argv[0] = "uncounted"
    cli(prog_name="python -m benchmarks.serving.uncounted")
