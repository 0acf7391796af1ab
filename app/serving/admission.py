"""Bound what a worker holds, in pictures and in bytes: one over the bound is refused before any work is done for it.

The bound on pictures is in one of two places. Where it is calm, a burst waits for its turn: up to `max_pictures`, and
no more than can be answered in `burst_s`. Once that many have been held, more is asked than can be done, and every
picture of a full queue would be answered late: from then on no more is held than is answered in a few milliseconds,
until hardly anything has to be refused. So a crowd that arrives at once is served, and a load that stays too high gets
quick answers and quick refusals. That queues should absorb bursts but not stand is from Nichols and Jacobson,
"Controlling Queue Delay" (ACM Queue 10(5), 2012). The signal here is the bound that was hit, not a measured delay:
clients that wait for each answer make a standing queue that does no harm.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

from app.errors import Overloaded
from app.metrics import Metrics

_SHORT_S = 0.005
"""Under overload no more is held than is answered in so many seconds."""
_SHORT_PICTURES = 4
"""But so many at least: those of one batch that runs, and those of the next."""
_WINDOW_S = 0.25
"""The rate of answers, and the share of refusals, are those of so many seconds in which the worker was busy."""
_CALM_SHARE = 0.1
"""A window in which a smaller share was refused is calm, and so is one after a break of two in which nothing was."""
_MAX_RETRY_AFTER_S = 60


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
    ) -> None:
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._burst_s = burst_s
        self._metrics = metrics
        self._clock = clock
        self._bound = max_pictures
        self._overloaded = False
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

    @property
    def overloaded(self) -> bool:
        return self._overloaded

    def enter(self, pictures: int = 1, *, size: int = 0) -> None:
        """Take the places of `pictures`, and of `size` bytes, until `leave`. Raises Overloaded where there are none."""
        pending = self._pending
        if pending + pictures > self._bound:
            self._find_room(pictures)
        if size:
            self.hold(size)
        if not pending:
            self._busy_since = self._clock()
        self._pending = pending + pictures
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
            raise self._refusal(f"The service holds {self._bytes:,} bytes of pictures already.", 1)
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
        if self._pending >= self._bound:
            self._find_room(1)
        received = 0

        def count(size: int) -> None:
            nonlocal received
            self.hold(size)
            received += size

        try:
            yield count
        finally:
            self.release(received)

    def _find_room(self, pictures: int) -> None:
        """Return where the pictures may enter although they reach over the bound."""
        now = self._clock()
        if self._overloaded:
            if now - self._refused_at > 2 * _WINDOW_S:
                self._overloaded = False
            self._look(now)
            # A request of many pictures may reach over a short bound that it finds open: else it would never enter.
            if self._pending < self._bound and self._pending + pictures <= self._max_pictures:
                return
        else:
            self._look(now)
            self._overloaded = True
            self._set_bound()
        self._refused_at = now
        raise self._refusal(f"The service holds {self._pending} pictures already.", pictures)

    def _refusal(self, what: str, pictures: int) -> Overloaded:
        self._refused += pictures
        self._metrics.dropped("refused").add(pictures)
        seconds = ceil(self._pending / self._rate) if self._rate else 1
        seconds = max(1, min(_MAX_RETRY_AFTER_S, seconds))
        return Overloaded(f"{what} Try again in {seconds} s.", retry_after_s=seconds)

    def _look(self, now: float) -> None:
        """Where the window has been long enough, take from it what the rate is, and whether it is calm."""
        if self._pending:
            self._busy_s += now - self._busy_since
            self._busy_since = now
        if self._busy_s >= _WINDOW_S:
            self._rate = self._left / self._busy_s
            if self._refused < _CALM_SHARE * self._left:
                self._overloaded = False
            self._busy_s, self._left, self._refused = 0.0, 0, 0
        elif self._busy_s and not self._rate:
            self._rate = self._left / self._busy_s  # better than none
        self._look_at = self._left + max(1, int(self._rate * _WINDOW_S / 4))
        self._set_bound()

    def _set_bound(self) -> None:
        seconds = _SHORT_S if self._overloaded else self._burst_s
        of_time = (
            max(_SHORT_PICTURES, int(self._rate * seconds)) if self._rate or self._overloaded else self._max_pictures
        )
        self._bound = min(self._max_pictures, of_time)
