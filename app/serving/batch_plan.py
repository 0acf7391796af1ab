"""Choose the next batch for a number of queued items: the first step of the cheapest way to run them all.

13 items may be quickest as 4, 4, 4 and 1, or padded to 16: that depends on the cost of each batch size on this machine,
and is computed once. It knows nothing of the items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Step:
    """Take `count` items and run them as a batch of `size`; the rows beyond `count` are padding."""

    count: int
    size: int


class BatchPlan:
    """A plan from the seconds that a batch of each allowed size takes."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        if not seconds or min(seconds) < 1:
            raise ValueError("a plan needs batch sizes from 1 up, each with the seconds that it takes")
        self.sizes = sorted(seconds)
        self._seconds = dict(seconds)
        self._steps = _cheapest_steps(seconds)

    @classmethod
    def of_powers(cls, largest: int) -> "BatchPlan":
        """Return a plan without measured costs: a batch is padded to the next power of two, or to `largest`."""
        sizes = [*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest]
        return cls({size: (largest + size) * 1e-9 for size in sizes})  # one padded batch is cheaper than two

    def size_of(self, count: int) -> int:
        """Return the smallest size that holds `count` items."""
        return next(size for size in self.sizes if size >= count)

    def seconds_of(self, size: int) -> float:
        """Return the seconds that a batch of one of the sizes takes."""
        return self._seconds[size]

    def next_step(self, waiting: int) -> Step:
        """Return the batch to run first if `waiting` items, at least one, are queued."""
        return self._steps[min(waiting, len(self._steps) - 1)]


def _cheapest_steps(seconds: Mapping[int, float]) -> list[Step]:
    """Return the first step for each number of items up to the largest size, by dynamic programming."""
    total = [0.0]
    steps = [Step(0, 0)]
    for waiting in range(1, max(seconds) + 1):
        cheapest, step = inf, steps[0]
        for size in sorted(seconds, reverse=True):  # of two at the same cost, take the one that answers more at once
            count = min(waiting, size)
            cost = seconds[size] + total[waiting - count]
            if cost < cheapest:
                cheapest, step = cost, Step(count, size)
        total.append(cheapest)
        steps.append(step)
    return steps
