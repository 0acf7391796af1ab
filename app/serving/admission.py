"""Bound what a worker holds, in pictures and in bytes: one over the bound is refused before any work is done for it.

The bound on pictures is in one of two places. Where it is calm, a burst waits for its turn: up to `max_pictures`, and
no more than can be answered in `burst_s`. Once that many have been held, more is asked than can be done, and every
picture of a full queue would be answered late: from then on no more is held than is answered in a few milliseconds,
until hardly anything has to be refused. So a crowd that arrives at once is served, and a load that stays too high gets
quick answers and quick refusals. That queues should absorb bursts but not stand is from Nichols and Jacobson,
"Controlling Queue Delay" (ACM Queue 10(5), 2012). The signal here is the bound that was hit, not a measured delay:
clients that wait for each answer make a standing queue that does no harm. And where no more connections are open than
may wait calmly, there is no overload, however often the same few clients ask again.

Under overload there is a second queue before this one: what has arrived at the sockets while the event loop was at
work. So what the loop comes to late is refused, and a full batch is run as soon as its last picture is there
(`relieve`), not after all that has arrived has been looked at.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

from app.errors import Overloaded
from app.metrics import Metrics

_SHORT_S = 0.004
"""Under overload no more is held than is answered in so many seconds, and nothing is taken that the event loop has not
come to for so long."""
_SHORT_PICTURES = 2
"""But so many are held at least: one that runs, and one that is next."""
_WINDOW_S = 0.25
"""The rate of answers, and the share of refusals, are those of so many seconds in which the worker was busy."""
_CALM_SHARE = 0.1
"""A window in which a smaller share was refused is calm, and so is one after a break of two in which nothing was."""
_MAX_RETRY_AFTER_S = 60


class LoopLag:
    """Tells how long the event loop has been at work on what it found when it last looked at its sockets.

    The first call in a turn of the loop counts as that look; the turn ends with the next callback that is due.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def __call__(self) -> float:
        now = time.monotonic()
        if self._since is None:
            self._since = now
            asyncio.get_running_loop().call_soon(self._end_turn)
        return now - self._since

    def _end_turn(self) -> None:
        self._since = None


def _nothing_waits() -> None:
    """Stand for a batcher that runs its batches elsewhere."""


class Admission:
    """Counts the pictures of this worker from their upload to their answer, and the bytes that they take."""

    def __init__(
        self,
        *,
        max_pictures: int,
        max_bytes: int,
        burst_s: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        lag: Callable[[], float] | None = None,
        connections: Callable[[], float] | None = None,
    ) -> None:
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._burst_s = burst_s
        self._metrics = metrics
        self._dropped = metrics.dropped("refused")
        self._connections = connections or (lambda: metrics.connections.value)
        self._clock = clock
        self._lag = lag or LoopLag()
        self._bound = max_pictures
        self.overloaded = False
        self.enough = 1
        """Pictures that keep the worker fully busy."""
        self.relieve: Callable[[], None] = _nothing_waits
        """Runs a batch of what waits to be run on the event loop."""
        self._pending = 0
        self._bytes = 0
        self._rate = 0.0  # pictures a second that leave while the worker is busy; 0 before it is known
        self._left = 0  # pictures since the window began
        self._refused = 0  # the same
        self._busy_s = 0.0  # the same, without the time since `_busy_since`
        self._busy_since = clock()  # while pictures are held
        self._refused_at = self._busy_since
        self._look_at = 1  # look at the window when so many have left

    @property
    def pending(self) -> int:
        """Pictures that are held."""
        return self._pending

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    def enter(self, pictures: int = 1, *, size: int = 0) -> None:
        """Take the places of `pictures`, and of `size` bytes, until `leave`. Raises Overloaded where there are none."""
        if (self.overloaded or self._pending + pictures > self._bound) and self.must_refuse(pictures):
            raise self.refusal(pictures)
        if size:
            self.hold(size)
        if not self._pending:
            self._busy_since = self._clock()
        self._pending += pictures
        self._metrics.pending_pictures.set(self._pending)

    def leave(self, pictures: int = 1, *, size: int = 0) -> None:
        if size:
            self.release(size)
        self._pending -= pictures
        self._left += pictures
        self._metrics.pending_pictures.set(self._pending)
        if not self._pending:
            self._busy_s += self._clock() - self._busy_since
        if self._left >= self._look_at:
            self._look(self._clock())

    @contextmanager
    def admit(self, pictures: int = 1) -> Iterator[None]:
        """Hold the places of `pictures` while the block runs. Raises Overloaded where there are not so many."""
        self.enter(pictures)
        try:
            yield
        finally:
            self.leave(pictures)

    def hold(self, size: int) -> None:
        """Count `size` bytes until `release`. Raises Overloaded where they are too many.

        Where nothing is held, anything may be: how large one picture may be is another limit.
        """
        if self._bytes and self._bytes + size > self._max_bytes:
            raise self.refusal(1, f"The service holds {self._bytes:,} bytes of pictures already.")
        self._bytes += size
        self._metrics.pending_bytes.set(self._bytes)

    def release(self, size: int) -> None:
        self._bytes -= size
        self._metrics.pending_bytes.set(self._bytes)

    @contextmanager
    def receive(self) -> Iterator[Callable[[int], None]]:
        """Return what counts the bytes of a body as they arrive, until the block ends. It raises Overloaded.

        Raises Overloaded at once where a picture would not be taken anyway.
        """
        if self._pending >= self._bound and self.must_refuse():
            raise self.refusal(1)
        received = 0

        def count(size: int) -> None:
            nonlocal received
            self.hold(size)
            received += size

        try:
            yield count
        finally:
            self.release(received)

    def must_refuse(self, pictures: int = 1) -> bool:
        """Say whether so many pictures are refused now, after `relieve` has done what it can."""
        if self.overloaded:
            if self._lag() > _SHORT_S:
                return True  # for all that is late in this turn of the loop; the first of them has looked at the window
        elif self._pending + pictures <= self._bound:
            return False
        now = self._clock()
        self._look(now)
        if self.overloaded and now - self._refused_at > 2 * _WINDOW_S:
            self.overloaded = False
            self._set_bound()
        if not self.overloaded:
            if self._pending + pictures <= self._bound:
                return False
            self.overloaded = self._connections() > self._bound
            self._set_bound()
        else:
            if self._pending >= self._bound:
                self.relieve()
            # A request of many pictures may reach over a short bound that it finds open: else it would never enter.
            if self._pending < self._bound and self._pending + pictures <= self._max_pictures:
                return False
        return True

    def refuse(self, pictures: int = 1) -> int:
        """Count so many pictures as refused, and return the seconds after which to try again."""
        self._refused += pictures
        self._refused_at = self._clock()
        self._dropped.add(pictures)
        seconds = ceil(self._pending / self._rate) if self._rate else 1
        return max(1, min(_MAX_RETRY_AFTER_S, seconds))

    def refusal(self, pictures: int, what: str = "The service is asked for more than it can do.") -> Overloaded:
        """Return the error that says `what` is in the way, and when to come back; so many pictures count as refused."""
        seconds = self.refuse(pictures)
        return Overloaded(f"{what} Try again in {seconds} s.", retry_after_s=seconds)

    def _look(self, now: float) -> None:
        """Where the window has been long enough, take from it what the rate is, and whether it is calm."""
        if self._pending:
            self._busy_s += now - self._busy_since
            self._busy_since = now
        if self._busy_s >= _WINDOW_S:
            self._rate = self._left / self._busy_s
            if self._refused < _CALM_SHARE * self._left or self._connections() <= self._calm_bound():
                self.overloaded = False
            self._busy_s, self._left, self._refused = 0.0, 0, 0
        elif self._busy_s and not self._rate:
            self._rate = self._left / self._busy_s  # better than none
        self._look_at = self._left + max(1, int(self._rate * _WINDOW_S / 4))
        self._set_bound()

    def _set_bound(self) -> None:
        if self.overloaded:
            short = max(_SHORT_PICTURES, self.enough, int(self._rate * _SHORT_S))
            self._bound = min(self._max_pictures, short)
        else:
            self._bound = self._calm_bound()

    def _calm_bound(self) -> int:
        if not self._rate:
            return self._max_pictures
        return min(self._max_pictures, max(_SHORT_PICTURES, self.enough, int(self._rate * self._burst_s)))
