"""Let a load of a new version pause, so that the requests that wait meanwhile are answered."""

import time
from collections.abc import Callable

_BUSY = 0.05
"""A thread that serves counts as idle if it worked for less than this share of a step."""
_TIMES = 2.0
"""A pause takes this many times as long as the step before it, so a load takes a third of a core."""
_LONGEST_S = 1.0


class LoadPauses:
    """Pauses between the steps of one load. A step computes for some hundredths of a second, for a large network more.

    If no core is free, requests queue up during a step. Without pauses their queue would grow from step to step.
    """

    def __init__(self, serving_thread: int, wait: Callable[[float], object]) -> None:
        """`serving_thread` is the identifier of the thread that answers requests; `wait` waits for these seconds."""
        self._clock = time.pthread_getcpuclockid(serving_thread)
        self._wait = wait
        self._begin_step()

    def pause(self) -> None:
        """End a step: wait, if requests were answered during it."""
        worked_s = time.monotonic() - self._began
        served_s = time.clock_gettime(self._clock) - self._served_before
        if served_s > _BUSY * worked_s:
            self._wait(min(_TIMES * worked_s, _LONGEST_S))
        self._begin_step()

    def _begin_step(self) -> None:
        self._began = time.monotonic()
        self._served_before = time.clock_gettime(self._clock)
