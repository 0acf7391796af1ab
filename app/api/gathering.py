"""The replies of one request's pictures, brought together in order. It knows nothing of pictures or HTTP."""

import asyncio

import numpy as np
from numpy.typing import NDArray

Outcome = NDArray[np.float32] | Exception
"""The probabilities (K,) of one picture, or why there are none."""


class Gathering:
    """One `Reply` for each of `count` pictures, and the future of all their outcomes."""

    def __init__(self, count: int) -> None:
        self.replies = [_OneOfMany(self, index) for index in range(count)]
        self.outcomes: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._found: dict[int, Outcome] = {}

    def has(self, index: int) -> bool:
        return index in self._found or self.outcomes.done()

    def add(self, index: int, outcome: Outcome) -> None:
        self._found[index] = outcome
        if len(self._found) == len(self.replies) and not self.outcomes.done():
            self.outcomes.set_result([self._found[index] for index in range(len(self.replies))])


class _OneOfMany:
    """The Reply of one picture among those of its request."""

    __slots__ = ("_gathering", "_index", "prepared_s", "queued_s", "ran_s")

    def __init__(self, gathering: Gathering, index: int) -> None:
        self.queued_s = self.prepared_s = self.ran_s = 0.0
        self._gathering = gathering
        self._index = index

    def done(self) -> bool:
        return self._gathering.has(self._index)

    def set_result(self, row: NDArray[np.float32]) -> None:
        self._gathering.add(self._index, row)

    def set_exception(self, error: Exception) -> None:
        self._gathering.add(self._index, error)
