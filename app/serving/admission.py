"""Bound what a worker holds: so many pictures at once, and one more is refused before any work is done for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import Overloaded


class Admission:
    """Counts the pictures of this worker from their upload to their answer."""

    def __init__(self, max_pending: int) -> None:
        self._max_pending = max_pending
        self._pending = 0

    @property
    def pending(self) -> int:
        return self._pending

    def enter(self, pictures: int = 1) -> None:
        """Take the places of `pictures` until `leave`. Raises Overloaded where there are not so many."""
        if self._pending + pictures > self._max_pending:
            raise Overloaded(f"The service holds {self._pending} pictures already. Try again in a moment.")
        self._pending += pictures

    def leave(self, pictures: int = 1) -> None:
        self._pending -= pictures

    @contextmanager
    def admit(self, pictures: int = 1) -> Iterator[None]:
        """Hold the places of `pictures` while the block runs. Raises Overloaded where there are not so many."""
        self.enter(pictures)
        try:
            yield
        finally:
            self.leave(pictures)
