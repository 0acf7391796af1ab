"""An event loop that is as late as it may be: it finds what happens to hold only because nothing comes in between."""

import asyncio
import random
import selectors
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVarTuple

Arguments = TypeVarTuple("Arguments")

_LAPS = (0, 0, 0, 1, 1, 2, 3, 4, 6)
"""Iterations of the loop by which a call from a thread may be late."""
_WITHHELD = 0.3
"""The share of sockets that are ready whose readiness an iteration does not see yet."""
_PAUSES = 0.05
"""The share of iterations before which the whole process stands still."""
_LONGEST_PAUSE_S = 0.002
_GRID_S = (0.0001, 0.001, 0.005)
"""The steps of a loop's timers: one of these for each loop."""


class ReportedByLoop(Exception):
    """What a test left to the loop's exception handler, which only logs it: it failed, and nobody noticed."""


_Late = tuple[asyncio.Handle, Context, Callable[..., object], tuple[Any, ...]]
"""A call from a thread: its handle, in which context, and what to call with what."""


class ShufflingLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, but for delays by a seeded generator. What fails on it can fail in a service.

    A callback is delayed only if the interfaces that it uses promise nothing about when it comes:

    - a call from a thread (`call_soon_threadsafe`: the end of `to_thread`, `run_in_executor`, what another thread asks
      for) comes some iterations late, as from a thread that had to wait for a processor. Calls of one thread stay in
      their order;
    - a socket's readiness is seen some iterations late, and in any order among sockets, as from a slow network. It is
      level-triggered: what is withheld is found again;
    - a timer is late, never early, by less than two steps of a grid. Timers stay in the order of their times;
    - the process stands still for a moment between two iterations, so several of these come at once.

    What `call_soon` promises is kept: its callbacks run first in, first out, and with them the steps of tasks and the
    callbacks of futures. Two tasks that are ready are never swapped: code may rely on that, so a test that failed for
    it would have found nothing.

    One seed makes the same choices each time. If real threads take part, they may ask for them in another order: repeat
    such a run a few times.

    `close` raises ReportedByLoop.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing is kept secret
        self._grid_s = self._random.choice(_GRID_S)
        self._late: defaultdict[int, deque[_Late]] = defaultdict(deque)  # by the thread that called
        self._reported: list[dict[str, Any]] = []
        super().__init__(_LateSelector(self._random))

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        context = context or copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        super().call_soon_threadsafe(self._arrive, threading.get_ident(), (handle, context, callback, args))
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        steps, rest = divmod(when, self._grid_s)
        # As late as the next step, and those of one step in their order still.
        return super().call_at((steps + 1) * self._grid_s + rest / 100, callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._reported.append(context)
        super().call_exception_handler(context)

    def close(self) -> None:
        super().close()
        reported, self._reported = self._reported, []
        for context in reported:
            raise ReportedByLoop(context["message"]) from context.get("exception")

    def _arrive(self, thread: int, call: _Late) -> None:
        late = self._late[thread]
        late.append(call)
        if len(late) == 1:
            self._carry(thread, self._random.choice(_LAPS))

    def _carry(self, thread: int, laps: int) -> None:
        """Make the first late call of a thread after so many iterations, and begin with the next."""
        if laps:
            self.call_soon(self._carry, thread, laps - 1)
            return
        late = self._late[thread]
        handle, context, callback, args = late.popleft()
        if late:
            self.call_soon(self._carry, thread, self._random.choice(_LAPS))
        if not handle.cancelled():
            context.run(callback, *args)


class _LateSelector(selectors.DefaultSelector):
    def __init__(self, generator: random.Random) -> None:
        super().__init__()
        self._random = generator

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._random.random() < _PAUSES:
            time.sleep(self._random.uniform(0, _LONGEST_PAUSE_S))
        ready = [event for event in super().select(timeout) if self._random.random() >= _WITHHELD]
        self._random.shuffle(ready)
        return ready
