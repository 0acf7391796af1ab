"""Bound the pictures and bytes that a worker holds. Beyond the bounds, reject before any work is done.

The bound on pictures has two values. When the worker is calm, a burst is queued: at most `max_pictures`, and at most as
many as can be answered in `burst_s`. When that bound is hit, the load exceeds the capacity, and every picture of a full
queue would be answered late: from then on the worker holds only as many as it can answer in a few milliseconds, until
hardly anything has to be rejected. So a burst is served, and a load that stays too high gets quick answers and quick
rejections. Queues should absorb bursts but not stand: Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue 10(5),
2012). The signal here is that the bound was hit, not a measured delay: clients that wait for each answer make a
standing queue that does no harm. If at most as many connections are open as pictures may be queued while calm, there is
no overload, however often the same few clients ask again.

Under overload there is a second queue before this one: data that arrives at the sockets while the event loop is busy.
So a request that the loop reads too late is rejected, and a full batch is run as soon as its last picture has arrived
(`relieve`), not after all other sockets have been read.

`make_room` decides, and may begin or end the state of overload. The other methods count.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, KeysView
from contextlib import contextmanager
from math import ceil, inf
from typing import Protocol

from app.errors import Overloaded
from app.metrics import Metrics

_SHORT_S = 0.004
"""While overloaded, hold only what can be answered in this time, and reject requests that wait longer for the loop."""
_SHORT_PICTURES = 2
"""While overloaded, hold at least this many pictures: one that runs, and the next one."""
_WINDOW_S = 0.25
"""Measure the rate of answers and the share of rejections over this much busy time of the worker."""
_CALM_SHARE = 0.1
"""Overload ends if a window rejected a smaller share, or after two windows' time without a rejection."""
_MAX_RETRY_AFTER_S = 60


class LoopLag:
    """Tells how long ago the current iteration of the event loop polled its sockets.

    The first call in an iteration of the loop counts as the poll; the iteration ends with the next callback.
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


class RateWindow:
    """Counts answers and rejections over the time in which a worker was busy, and computes the rate of answers."""

    def __init__(self, now: float) -> None:
        self.rate = 0.0
        """Pictures answered a second while the worker is busy; 0 before it is known."""
        self._left = 0  # pictures since the window began
        self._rejected = 0  # pictures since the window began
        self._busy_s = 0.0  # since the window began, without the time since `_busy_since`
        self._busy_since = now  # while pictures are held
        self._look_at = 1

    def begin_work(self, now: float) -> None:
        """Call when the worker begins to hold pictures."""
        self._busy_since = now

    def end_work(self, now: float) -> None:
        """Call when the worker holds none any more."""
        self._busy_s += now - self._busy_since

    def count_left(self, pictures: int) -> bool:
        """Count answered pictures. Return whether enough have been answered since the last `look` to call it again."""
        self._left += pictures
        return self._left >= self._look_at

    def count_rejected(self, pictures: int) -> None:
        self._rejected += pictures

    def look(self, now: float, *, busy: bool) -> float | None:
        """Update the rate. If the window has been long enough, begin a new one and return the share of rejections.

        The share is rejected / answered; None if the window is not over.
        """
        if busy:
            self._busy_s += now - self._busy_since
            self._busy_since = now
        share = None
        if self._busy_s >= _WINDOW_S:
            self.rate = self._left / self._busy_s
            share = self._rejected / self._left if self._left else inf
            self._busy_s, self._left, self._rejected = 0.0, 0, 0
        elif self._busy_s and not self.rate:
            self.rate = self._left / self._busy_s  # better than none
        self._look_at = self._left + max(1, int(self.rate * _WINDOW_S / 4))
        return share


def _nothing_waits() -> None:
    """Stand in for a batcher whose batches run in threads."""


class Owner(Protocol):
    """The owner of a lease: a task, or a request that is answered without one."""

    def done(self) -> bool:
        """Return whether it has ended. If so, it should hold nothing."""


class Lease:
    """The places and bytes that one owner holds. The first `end` releases them; later ones do nothing."""

    __slots__ = ("_admission", "explains", "owner", "pictures", "since", "size")

    def __init__(
        self, admission: "Admission", owner: Owner, pictures: int, size: int, since: float, *, explains: bool = False
    ) -> None:
        self._admission = admission
        self.owner = owner
        self.pictures = pictures
        self.size = size
        self.since = since
        """When it began, on the admission's clock."""
        self.explains = explains
        """Whether it is for an explanation, which may take long while the worker is hardly busy."""

    def hold(self, size: int) -> None:
        """Hold `size` bytes more. Raises Overloaded if they are too many."""
        self._admission.grow(self, size)

    def end(self) -> None:
        self._admission.leave(self)


class Admission:
    """Counts the pictures and bytes that this worker holds, from a picture's upload to its answer."""

    def __init__(
        self,
        *,
        max_pictures: int,
        max_bytes: int,
        burst_s: float,
        metrics: Metrics,
        max_explanations: int = 0,
        clock: Callable[[], float] = time.monotonic,
        lag: Callable[[], float] | None = None,
        connections: Callable[[], float] | None = None,
    ) -> None:
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._max_explanations = max_explanations
        self._burst_s = burst_s
        self._metrics = metrics
        self._dropped = metrics.dropped("refused")
        self._connections = connections or (lambda: metrics.connections.value)
        self._clock = clock
        self._lag = lag or LoopLag()
        self._bound = max_pictures
        self.overloaded = False
        self.enough = 1
        """The number of pictures that keeps the worker fully busy."""
        self.relieve: Callable[[], None] = _nothing_waits
        """Runs a batch of queued pictures, if batches run on the event loop."""
        self._pending = 0
        self._explaining = 0  # of the pending ones
        self._bytes = 0
        self._leases: dict[Lease, None] = {}  # the open ones, oldest first
        self.released_at = clock()
        """When an owner last released a lease, on the admission's clock."""
        self._window = RateWindow(self.released_at)
        self._rejected_at = self.released_at

    @property
    def pending(self) -> int:
        """The number of held pictures."""
        return self._pending

    @property
    def _is_busy(self) -> bool:
        """Whether pictures are held that count for the measured rate of answers."""
        return self._pending > self._explaining

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    @property
    def leases(self) -> KeysView[Lease]:
        """The open leases, oldest first."""
        return self._leases.keys()

    @property
    def is_full(self) -> bool:
        """Whether one more picture would be rejected for lack of a place."""
        return self._pending >= self._bound

    def now(self) -> float:
        """Return the time on the clock of `Lease.since` and `released_at`."""
        return self._clock()

    def enter(self, owner: Owner, pictures: int = 1, *, size: int = 0, explains: bool = False) -> Lease:
        """Take places for `pictures` and `size` bytes until the lease ends. Raises Overloaded if there is no room.

        A lease that `explains` also counts against a bound of its own, and is left out of the measured rate of answers.
        """
        if explains and self._explaining >= self._max_explanations:
            raise self.reject(pictures, "The service already makes as many explanations as it may.")
        if (self.overloaded or self._pending + pictures > self._bound) and not self.make_room(pictures):
            raise self.reject(pictures)
        if size:
            self._check_room(size)
        now = self._clock()
        if explains:
            self._explaining += pictures
        elif not self._is_busy:
            self._window.begin_work(now)
        self._pending += pictures
        self._bytes += size
        lease = Lease(self, owner, pictures, size, now, explains=explains)
        self._leases[lease] = None
        self._metrics.pending_pictures.set(self._pending)
        self._metrics.pending_bytes.set(self._bytes)
        return lease

    def hold(self, owner: Owner, size: int) -> Lease:
        """Count `size` bytes until the lease ends. Raises Overloaded if they are too many.

        If nothing else is held, any size is accepted: the size of one picture has another limit.
        """
        self._check_room(size)
        lease = Lease(self, owner, 0, 0, self._clock())
        self._leases[lease] = None
        self._add(lease, size)
        return lease

    def grow(self, lease: Lease, size: int) -> None:
        """Count `size` more bytes for an open lease. Raises Overloaded if they are too many."""
        if lease in self._leases:
            self._check_room(size, own=lease.size)
            self._add(lease, size)

    def leave(self, lease: Lease) -> None:
        """Release a lease, unless it has been released already."""
        if lease not in self._leases:
            return
        del self._leases[lease]
        now = self.released_at = self._clock()
        self._bytes -= lease.size
        self._metrics.pending_bytes.set(self._bytes)
        if not lease.pictures:
            return
        self._pending -= lease.pictures
        self._metrics.pending_pictures.set(self._pending)
        if lease.explains:
            self._explaining -= lease.pictures
            return
        if not self._is_busy:
            self._window.end_work(now)
        if self._window.count_left(lease.pictures):
            self._look(now)

    @contextmanager
    def receive(self) -> Iterator[Callable[[int], None]]:
        """Yield a callback that counts the bytes of a body as they arrive, and hold them until the block ends.

        Raises Overloaded at once if a picture would be rejected anyway. The callback raises it for too many bytes.
        """
        self.check_place()
        lease = self.hold(this_task(), 0)
        try:
            yield lease.hold
        finally:
            lease.end()

    def check_place(self) -> None:
        """Raise Overloaded if a picture would be rejected for lack of a place."""
        if self.is_full and not self.make_room():
            raise self.reject()

    def _check_room(self, size: int, *, own: int = 0) -> None:
        if self._bytes > own and self._bytes + size > self._max_bytes:
            raise self.reject(1, f"The service holds {self._bytes:,} bytes of pictures already.")

    def _add(self, lease: Lease, size: int) -> None:
        lease.size += size
        self._bytes += size
        self._metrics.pending_bytes.set(self._bytes)

    def make_room(self, pictures: int = 1) -> bool:
        """Return whether there is room for pictures, and make it if possible.

        This may begin or end the state of overload, and run a batch of queued pictures (`relieve`).
        """
        if self.overloaded:
            if self._lag() > _SHORT_S:
                # all late requests of this iteration are rejected; the first of them has updated the window
                return False
        elif self._pending + pictures <= self._bound:
            return True
        now = self._clock()
        self._look(now)
        if self.overloaded and now - self._rejected_at > 2 * _WINDOW_S:
            self.overloaded = False
            self._set_bound()
        if not self.overloaded:
            if self._pending + pictures <= self._bound:
                return True
            self.overloaded = self._connections() > self._bound
            self._set_bound()
            return False
        if self._pending >= self._bound:
            self.relieve()
        # A request of many pictures may exceed a short bound that is not yet reached: else it could never enter.
        return self._pending < self._bound and self._pending + pictures <= self._max_pictures

    def count_rejected(self, pictures: int = 1) -> int:
        """Count pictures as rejected, and return the seconds for Retry-After."""
        self._window.count_rejected(pictures)
        self._rejected_at = self._clock()
        self._dropped.add(pictures)
        rate = self._window.rate
        return max(1, min(_MAX_RETRY_AFTER_S, ceil(self._pending / rate) if rate else 1))

    def reject(self, pictures: int = 1, what: str = "The service is overloaded.") -> Overloaded:
        """Count pictures as rejected, and return the error, which names the cause `what` and when to try again."""
        seconds = self.count_rejected(pictures)
        return Overloaded(f"{what} Try again in {seconds} s.", retry_after_s=seconds)

    def _look(self, now: float) -> None:
        """Update the rate from the window, and end the state of overload if the window was calm."""
        share = self._window.look(now, busy=self._is_busy)
        if share is not None and (share < _CALM_SHARE or self._connections() <= self._calm_bound()):
            self.overloaded = False
        self._set_bound()

    def _set_bound(self) -> None:
        if self.overloaded:
            short = max(_SHORT_PICTURES, self.enough, int(self._window.rate * _SHORT_S))
            self._bound = min(self._max_pictures, short)
        else:
            self._bound = self._calm_bound()

    def _calm_bound(self) -> int:
        rate = self._window.rate
        if not rate:
            return self._max_pictures
        return min(self._max_pictures, max(_SHORT_PICTURES, self.enough, int(rate * self._burst_s)))


def this_task() -> Owner:
    """Return the running task, as the owner of a lease."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only a task can hold a lease by a block")
    return task
