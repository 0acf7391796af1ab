"""Bound what a worker holds, in pictures and in bytes: one over the bound is refused before any work is done for it.

The bound on pictures is in one of two places. Where it is calm, a burst of up to `max_pictures` waits for its turn.
Once that many have been held, more is asked than can be done, and every picture of a full queue would be answered late:
from then on no more is held than is answered in a few milliseconds, until hardly anything has to be refused. So a crowd
that arrives at once is served, and a load that stays too high gets quick answers and quick refusals. That queues should
absorb bursts but not stand is from Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue 10(5), 2012). The signal
here is the bound that was hit, not a measured delay: clients that wait for each answer make a standing queue that does
no harm.
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
_WINDOW_S = 0.5
"""What is measured, the rate of answers and the share of refusals, is measured over so long."""
_CALM_SHARE = 0.1
"""A window in which a smaller share was refused is calm."""
_MAX_RETRY_AFTER_S = 60


class Admission:
    """Counts the pictures of this worker from their upload to their answer, and the bytes that they take."""

    def __init__(
        self, *, max_pictures: int, max_bytes: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._clock = clock
        self._metrics = metrics
        self._bound = max_pictures  # lower under overload
        self._pending = 0
        self._bytes = 0
        self._left = 0  # pictures since the start
        self._rate = 0.0  # pictures a second that leave while the worker is busy; 0 before it is known
        self._window_since = clock()
        self._window_left = 0
        self._window_refused = 0
        self._refused_at = self._window_since

    @property
    def pending(self) -> int:
        """Pictures that are held."""
        return self._pending

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    @property
    def overloaded(self) -> bool:
        return self._bound < self._max_pictures

    def enter(self, pictures: int = 1, *, size: int = 0) -> None:
        """Take the places of `pictures`, and of `size` bytes, until `leave`. Raises Overloaded where there are none."""
        pending = self._pending
        if pending + pictures > self._bound:
            self._find_room(pictures)
        elif not pending and self._bound == self._max_pictures:
            self._begin_window(self._clock())  # the worker was idle until now
        if size:
            self.hold(size)
        self._pending = pending + pictures
        self._metrics.pending_pictures.set(self._pending)

    def leave(self, pictures: int = 1, *, size: int = 0) -> None:
        if size:
            self.release(size)
        self._pending -= pictures
        self._left += pictures
        self._metrics.pending_pictures.set(self._pending)

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

        Raises Overloaded at once where the pictures of the body would not be taken anyway.
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
        """Return where the pictures may enter although the bound is reached: it is not what it was, or they are one
        request, which may reach over a short bound that it found open."""
        now = self._clock()
        if self.overloaded:
            if now - self._window_since >= _WINDOW_S:
                self._close_window(now)
            if self._pending < self._bound and self._pending + pictures <= self._max_pictures:
                return
        else:
            self._close_window(now)
            self._bound = self._short_bound()
        self._refused_at = now
        raise self._refusal(f"The service holds {self._pending} pictures already.", pictures)

    def _refusal(self, what: str, pictures: int) -> Overloaded:
        self._metrics.dropped("refused").add(pictures)
        self._window_refused += pictures
        seconds = ceil(self._pending / self._rate) if self._rate else 1
        seconds = max(1, min(_MAX_RETRY_AFTER_S, seconds))
        return Overloaded(f"{what} Try again in {seconds} s.", retry_after_s=seconds)

    def _close_window(self, now: float) -> None:
        """Take the rate from the window that ends now; under overload, also whether it is over."""
        left = self._left - self._window_left
        if left and now > self._window_since:
            self._rate = left / (now - self._window_since)
        if self.overloaded:
            calm = now - self._refused_at > _WINDOW_S or self._window_refused < _CALM_SHARE * left
            self._bound = self._max_pictures if calm else self._short_bound()
        self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window_since = now
        self._window_left = self._left
        self._window_refused = 0

    def _short_bound(self) -> int:
        return min(self._max_pictures, max(_SHORT_PICTURES, int(self._rate * _SHORT_S)))
