"""Follow a bucket: a thread of each worker polls it, alternating with the other workers' threads."""

import asyncio
import random
import threading
from types import TracebackType
from typing import Self

import structlog

from app.object_storage.mirror import Mirror

_SPREAD = 0.2
"""Each wait is longer or shorter by up to this share, at random, so that many machines do not ask simultaneously."""
_LONGEST_WAIT_S = 5.0
"""While the bucket cannot be reached, waits grow up to this, or to the interval if that is longer."""

_log = structlog.stdlib.get_logger(__name__)


class Follower:
    """Keeps a mirror in line with its bucket; an async context manager for the application's lifespan."""

    def __init__(self, mirror: Mirror, *, interval_s: float) -> None:
        self._mirror = mirror
        self._interval_s = interval_s
        self._failure = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        if self._interval_s:
            self._thread = threading.Thread(target=self._follow, name="object-storage", daemon=True)
            self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do not wait for a download: it is left behind in a hidden folder, and removed by the next start."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 1.0)

    def _follow(self) -> None:
        failed = 0
        while not self._stop.wait(self._wait_s(failed)):
            try:
                reached = self._mirror.follow(every_s=self._interval_s * (1 - _SPREAD) / 2)
                failed = 0 if reached else failed + 1
            except Exception as exc:  # noqa: BLE001 - the next time may succeed
                failed += 1
                if self._failure != repr(exc):  # log it once, not twice a second
                    self._failure = repr(exc)
                    _log.exception("following the object store failed")

    def _wait_s(self, failed: int) -> float:
        longest = max(_LONGEST_WAIT_S, self._interval_s)
        spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - no secret
        return min(longest, self._interval_s * 2.0 ** min(failed, 16)) * spread
