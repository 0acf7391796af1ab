"""One timer for all connections that have the same timeout."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Waiting = TypeVar("_Waiting", bound=Hashable)


class Clock(Generic[_Waiting]):
    """Call `due` for each member that has been on the clock for `seconds`.

    All have the same timeout, so they fall due in order of arrival, and one timer for the first is enough.
    """

    def __init__(self, seconds: float, due: Callable[[_Waiting], None]) -> None:
        self._seconds = seconds
        self._due = due
        self._since: dict[_Waiting, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, member: _Waiting) -> bool:
        return member in self._since

    def __len__(self) -> int:
        return len(self._since)

    def start(self, member: _Waiting) -> None:
        """Start the member's timeout now, unless it is running."""
        if member not in self._since:
            loop = asyncio.get_running_loop()
            self._since[member] = loop.time()
            if self._timer is None:
                self._timer = loop.call_later(self._seconds, self._look, loop)

    def stop(self, member: _Waiting) -> None:
        self._since.pop(member, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        latest = loop.time() - self._seconds + 0.001  # the loop's time has steps of a millisecond
        for member in [member for member, since in self._since.items() if since <= latest]:
            if self._since.pop(member, None) is not None:  # an earlier `due` call may have stopped it
                self._due(member)
        if self._since and self._timer is None:
            oldest = next(iter(self._since.values()))
            self._timer = loop.call_later(max(0.001, oldest - latest), self._look, loop)
