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
from collections.abc import Callable, Iterator, KeysView
from contextlib import contextmanager
from math import ceil
from typing import Protocol

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


class Owner(Protocol):
    """Whoever holds a lease: a task, or a request that is answered without one."""

    def done(self) -> bool:
        """Say whether it is over, so that it should hold nothing."""


class Lease:
    """The places and bytes that one owner holds. They are given back once, by the first `end`."""

    __slots__ = ("_admission", "owner", "pictures", "since", "size")

    def __init__(self, admission: "Admission", owner: Owner, pictures: int, size: int, since: float) -> None:
        self._admission = admission
        self.owner = owner
        self.pictures = pictures
        self.size = size
        self.since = since
        """On the admission's clock."""

    def hold(self, size: int) -> None:
        """Hold `size` bytes more. Raises Overloaded if they are too many."""
        self._admission.grow(self, size)

    def end(self) -> None:
        self._admission.leave(self)


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
        self._leases: dict[Lease, None] = {}  # the open ones, oldest first
        self.given_back_at = clock()
        """When an owner last gave something back, on the admission's clock."""
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

    @property
    def leases(self) -> KeysView[Lease]:
        """The open leases, oldest first."""
        return self._leases.keys()

    @property
    def is_full(self) -> bool:
        """Whether one picture more would be rejected for want of a place."""
        return self._pending >= self._bound

    def now(self) -> float:
        """Return the time on the clock of `Lease.since` and `given_back_at`."""
        return self._clock()

    def enter(self, owner: Owner, pictures: int = 1, *, size: int = 0) -> Lease:
        """Take places for `pictures` and `size` bytes until the lease ends. Raises Overloaded if there is no room."""
        if (self.overloaded or self._pending + pictures > self._bound) and self.must_refuse(pictures):
            raise self.refusal(pictures)
        if size:
            self._check_room(size)
        now = self._clock()
        if not self._pending:
            self._busy_since = now
        self._pending += pictures
        self._bytes += size
        lease = Lease(self, owner, pictures, size, now)
        self._leases[lease] = None
        self._metrics.pending_pictures.set(self._pending)
        self._metrics.pending_bytes.set(self._bytes)
        return lease

    def hold(self, owner: Owner, size: int) -> Lease:
        """Count `size` bytes until the lease ends. Raises Overloaded if they are too many.

        If nobody else holds any, anything may be held: how large one picture may be is another limit.
        """
        self._check_room(size)
        lease = Lease(self, owner, 0, 0, self._clock())
        self._leases[lease] = None
        self._add(lease, size)
        return lease

    def grow(self, lease: Lease, size: int) -> None:
        """Count `size` bytes more for an open lease. Raises Overloaded if they are too many."""
        if lease in self._leases:
            self._check_room(size, own=lease.size)
            self._add(lease, size)

    def leave(self, lease: Lease) -> None:
        """Take back what a lease holds, unless it has been taken back already."""
        if lease not in self._leases:
            return
        del self._leases[lease]
        now = self.given_back_at = self._clock()
        self._bytes -= lease.size
        self._metrics.pending_bytes.set(self._bytes)
        if not lease.pictures:
            return
        self._pending -= lease.pictures
        self._left += lease.pictures
        self._metrics.pending_pictures.set(self._pending)
        if not self._pending:
            self._busy_s += now - self._busy_since
        if self._left >= self._look_at:
            self._look(now)

    @contextmanager
    def receive(self) -> Iterator[Callable[[int], None]]:
        """Yield a callback that counts the bytes of a body as they arrive, until the block of this task ends.

        Raises Overloaded at once if a picture would not be taken anyway; so does the callback, if they are too many.
        """
        if self.is_full and self.must_refuse():
            raise self.refusal(1)
        lease = self.hold(this_task(), 0)
        try:
            yield lease.hold
        finally:
            lease.end()

    def _check_room(self, size: int, *, own: int = 0) -> None:
        if self._bytes > own and self._bytes + size > self._max_bytes:
            raise self.refusal(1, f"The service holds {self._bytes:,} bytes of pictures already.")

    def _add(self, lease: Lease, size: int) -> None:
        lease.size += size
        self._bytes += size
        self._metrics.pending_bytes.set(self._bytes)

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


def this_task() -> Owner:
    """Return the running task as the owner of a lease."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only a task can hold a lease by a block")
    return task
