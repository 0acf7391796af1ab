"""Run many small calls as batches of one function, and return each caller's row.

It knows nothing of pictures, models or engines. Its rules:

- a free slot is taken first, and the batch is then filled with the queued items: an idle batcher adds no delay, and
  under load a batch holds the items that arrived while the batch before it ran;
- an item is prepared when its batch is filled, one after another: an item that cannot be prepared fails alone, an item
  that nobody waits for costs nothing, and the preparing code stays in the processor's caches;
- prepared items have the same shape and dtype, so no item can spoil a batch;
- the queue is bounded, and an item that does not fit is rejected at once;
- a caller that is cancelled leaves the queue, and its batch goes on without it; so does one whose deadline passes, or
  would pass before its batch is done: its item is neither prepared nor run;
- every caller gets exactly one result, or one exception of its own: a batch that fails is bisected until only the
  culprits fail; if a batch hangs, its items are run one by one, and the hanging thread is abandoned;
- an idle item runs alone, and only if no other item is queued, so that others wait for one such run at most;
- batches have one of a few sizes if the function is faster on sizes that it has seen.

A quick function is called on the event loop itself: a thread would cost more than it saves. The order "slot
first, then fill" is Triton's; the care for each caller is Ray Serve's; preparing by cohorts is from Larus and Parkes,
"Using Cohort Scheduling to Enhance Server Performance" (USENIX 2002).
"""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, Overloaded, ShuttingDown
from app.serving.batch_plan import BatchPlan
from app.system.wording import count_of
from app.tracing.trace import Trace
from app.waiting import wait_all

Array = NDArray[Any]
Rows = Collection[Any]
"""What `run` gives: a row for each item of its batch, in order."""
_HANGS = 20
"""A batch counts as hung after this multiple of its measured time, and never before `run_timeout_s`."""
_MOST_HANGING = 3
"""Call `give_up` when this many threads are abandoned: each holds memory, and perhaps a core."""

_LONGEST_RUN_S = 0.05
"""Run batches at most this long in one iteration of the event loop."""

_log = structlog.stdlib.get_logger(__name__)
Item = TypeVar("Item")


class Reply(Protocol):
    """The receiver of a row, such as a RowFuture. No method may raise.

    The times so far are set before the reply is answered, in seconds: `queued_s` until a batch took the item,
    `prepared_s` for preparing it, `ran_s` in the batch. The code that prepares the item sets `prepared_s`: the batcher
    knows nothing about work that was done before `put`.
    """

    queued_s: float
    prepared_s: float
    ran_s: float

    @property
    def trace(self) -> Trace | None:
        """The trace that records these stages. The meters use it, not the batcher itself."""

    def done(self) -> bool: ...

    def set_result(self, row: Any, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


class RowFuture(asyncio.Future[Any]):
    """The Reply for a coroutine."""

    queued_s = prepared_s = ran_s = 0.0
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Meters:
    """Callbacks for metrics, on the event loop. No call may take long or raise."""

    waited: Callable[[Reply, float], None]
    """Called when a batch takes the item of this reply, with the seconds that the item waited."""
    ran: Callable[[Collection[Reply], float], None]
    """The replies of a batch that has just ended, and the seconds that it took."""
    gave: Callable[[Rows, int], None]
    """The rows of a batch that succeeded, and the number of its items; further rows are padding."""
    expired: Callable[[], None]
    """An item was dropped for its deadline."""
    cancelled: Callable[[], None]
    """An item was dropped because nobody waited for it any more."""


class Batcher(Generic[Item]):
    """An async context manager around `run`: (N, *item_shape) → N rows.

    `prepare` makes an item into an array of `item_shape` and `item_dtype`. `plan` has the batch sizes. With `slots`, at
    most that many batches run at once in threads of the batcher's own; with 0, one at a time on the event loop. A batch
    in a thread that takes longer than `run_timeout_s` counts as hung; `give_up` is called when too many hang.
    """

    def __init__(
        self,
        run: Callable[[Array], Rows],
        *,
        prepare: Callable[[Item], Array],
        item_shape: tuple[int, ...],
        item_dtype: type[np.generic],
        plan: BatchPlan,
        max_waiting: int,
        meters: Meters,
        run_timeout_s: float,
        give_up: Callable[[], None],
        slots: int = 1,
    ) -> None:
        self._run = run
        self._prepare = prepare
        self._item_shape = item_shape
        self._item_dtype = np.dtype(item_dtype)
        self._plan = plan
        self._max_waiting = max_waiting
        self._meters = meters
        self._idle_meters = replace(meters, ran=_uncounted, gave=_uncounted)
        self._run_timeout_s = run_timeout_s
        self._give_up = give_up
        self._slots = slots
        self._free_slots = max(1, slots)
        self._executor = _threads(slots) if slots else None
        self._hanging = 0  # abandoned threads
        self._waiting: dict[Reply, tuple[Item, float]] = {}  # with the time of arrival, and in its order
        self._idle: dict[Reply, Item] = {}
        self._deadlines: dict[Reply, float] = {}  # of all items that are queued or running
        self._alarm: asyncio.TimerHandle | None = None  # set for the first of them, or earlier
        self._alarm_at = 0.0  # when the timer is due: uvloop's handle does not say if that is past
        self._running: dict[asyncio.Task[None], dict[Reply, Array]] = {}  # in threads, with their batches
        self._dispatch_is_due = False
        self._ran_until = monotonic()  # on the event loop
        self._closing = False
        self._drained: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def waiting(self) -> int:
        """The number of queued items."""
        return len(self._waiting)

    async def submit(self, item: Item, *, deadline: float | None = None, idle: bool = False) -> Any:
        """Return the row that `run` gave for `item`; see `put`, and with `idle`, `put_idle`."""
        if idle:
            return await row_for(lambda reply: self.put_idle(item, reply), self.withdraw)
        return await row_for(lambda reply: self.put(item, reply, deadline=deadline), self.withdraw)

    def put(self, item: Item, reply: Reply, *, deadline: float | None = None) -> None:
        """Queue an item; `reply` gets its row, or an exception.

        The exception is DeadlineExceeded, ShuttingDown, that of `prepare`, or InferenceFailed if `run` failed on this
        very item. `deadline` is in seconds of the event loop's clock. Raises Overloaded when the queue is full, and
        ShuttingDown after `aclose`.
        """
        if self._closing:
            raise stopping_error()
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(
                f"{count_of(self._max_waiting, 'picture')} in the queue are already queued. Try again in a moment."
            )
        self._waiting[reply] = item, monotonic()
        if deadline is not None:
            self._deadlines[reply] = deadline
            if self._alarm is None or deadline < self._alarm_at:
                self._set_alarm(deadline)
        if not self._dispatch_is_due and self._free_slots:
            self._schedule_dispatch()

    def put_idle(self, item: Item, reply: Reply) -> None:
        """Run an item alone, when no other item is queued, and without the meters. Otherwise as `put`."""
        if self._closing:
            raise stopping_error()
        self._idle[reply] = item
        if not self._dispatch_is_due and self._free_slots:
            self._schedule_dispatch()

    def withdraw(self, reply: Reply) -> None:
        """Forget a caller that has gone or was answered: if its item is still queued, it is never run."""
        self._idle.pop(reply, None)
        if self._waiting.pop(reply, None) is not None:
            self._meters.cancelled()
        self._deadlines.pop(reply, None)
        if self._closing:
            self._say_when_drained()

    def run_waiting(self) -> None:
        """If batches run on the event loop, run one of the queued items now, not in a later iteration."""
        if self._executor is None and self._waiting:
            batch, size = self._fill()
            if batch:
                self._run_here(batch, size, self._meters)

    async def aclose(self, grace_s: float = 0.0) -> None:
        """Reject new items, give accepted ones `grace_s` seconds to finish, and fail the rest with ShuttingDown."""
        self._closing = True
        try:
            if self._waiting or self._running:
                self._drained = self._drained or asyncio.get_running_loop().create_future()
                await wait_all([self._drained], timeout_s=grace_s)
        finally:
            self.close()

    def close(self) -> None:
        """End now, and cut short the grace of a waiting `aclose`: callers without a row get ShuttingDown."""
        self._closing = True
        for reply in [*self._waiting, *self._idle]:
            self._fail(reply, ShuttingDown("The service stopped before this picture was classified."))
        if self._alarm is not None:
            self._alarm.cancel()
        for task in list(self._running):
            task.cancel()
            self._end_run(task)
        self._say_when_drained()
        if self._executor is not None:
            # A run that hangs cannot be stopped: its thread is abandoned.
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _say_when_drained(self) -> None:
        if self._drained is not None and not self._drained.done() and not self._waiting and not self._running:
            self._drained.set_result(None)

    def _schedule_dispatch(self) -> None:
        # Two iterations of the event loop later, so that requests that are read in this one share the batch. This is no
        # timer: if there is nothing else to do, two iterations take microseconds.
        self._dispatch_is_due = True
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_is_due = False
        if self._executor is None:
            self._run_for_a_while()
        while self._free_slots and (self._waiting or self._idle) and self._executor is not None:
            meters = self._meters if self._waiting else self._idle_meters
            batch, size = self._fill() if self._waiting else self._take_idle()
            if not batch:
                continue
            self._free_slots -= 1
            task = asyncio.get_running_loop().create_task(self._run_in_thread(batch, size, meters))
            self._running[task] = batch
            task.add_done_callback(self._release_slot)
        if self._closing:
            self._say_when_drained()

    def _run_for_a_while(self) -> None:
        """Run batches on the event loop for as long as the loop has worked on other things since the last ones.

        Then the loop continues, so that answers leave and requests arrive. If only one batch were run per iteration,
        many connections with large uploads, each of which takes some time of every iteration, would leave hardly any
        time for batches.
        """
        began = now = monotonic()
        until = began + min(began - self._ran_until, _LONGEST_RUN_S)
        while self._waiting:
            batch, size = self._fill()
            if batch:
                self._run_here(batch, size, self._meters)
                now = monotonic()
                if now >= until:
                    break
        if self._idle and not self._waiting:
            batch, size = self._take_idle()
            if batch:
                self._run_here(batch, size, self._idle_meters)
                now = monotonic()
        self._ran_until = now
        if self._waiting or self._idle:
            self._schedule_dispatch()

    def _release_slot(self, task: asyncio.Task[None]) -> None:
        self._end_run(task)
        self._free_slots += 1
        self._dispatch()

    def _end_run(self, task: asyncio.Task[None]) -> None:
        """Fail the unanswered callers of a task's batch: it was cancelled, perhaps before its first step."""
        for reply in self._running.pop(task, {}):
            self._fail(reply, ShuttingDown("The service stopped while this picture was being classified."))

    def _fill(self) -> tuple[dict[Reply, Array], int]:
        """Take the next items from the queue and prepare them. Items that cannot be prepared, or would be too late, are
        answered here."""
        step = self._plan.next_step(len(self._waiting))
        latest = asyncio.get_running_loop().time() + self._plan.seconds_of(step.size)
        batch: dict[Reply, Array] = {}
        for reply in list(islice(self._waiting, step.count)):
            item, arrived = self._waiting.pop(reply)
            if reply.done():  # cancelled in this iteration
                self._deadlines.pop(reply, None)
                self._meters.cancelled()
                continue
            if self._deadlines.get(reply, latest) < latest:
                self._expire_one(reply)
                continue
            reply.queued_s = waited = monotonic() - arrived
            self._meters.waited(reply, waited)
            try:
                array = self._prepared(item)
            except Exception as exc:  # noqa: BLE001 - any exception goes to this caller
                self._fail(reply, exc)
            else:
                batch[reply] = array
        return batch, step.size if len(batch) == step.count else self._plan.size_of(max(1, len(batch)))

    def _take_idle(self) -> tuple[dict[Reply, Array], int]:
        """Return the next idle item as a batch of its own, or an empty batch if the item cannot be prepared."""
        reply = next(iter(self._idle))
        item = self._idle.pop(reply)
        size = self._plan.size_of(1)
        if reply.done():
            return {}, size
        try:
            return {reply: self._prepared(item)}, size
        except Exception as exc:  # noqa: BLE001 - any exception goes to this caller
            self._fail(reply, exc)
            return {}, size

    def _run_here(self, batch: dict[Reply, Array], size: int, meters: Meters) -> None:
        parts = [(batch, size)]
        while parts:
            part, size = parts.pop()
            began = monotonic()
            outcome = self._outcome(part, size)
            seconds = monotonic() - began
            meters.ran(part, seconds)
            parts += self._settle(part, outcome, seconds, meters)

    async def _run_in_thread(self, batch: dict[Reply, Array], size: int, meters: Meters) -> None:
        parts = [(batch, size)]
        while parts:
            part, size = parts.pop()
            part = {reply: array for reply, array in part.items() if not reply.done()}
            if part:
                began = monotonic()
                outcome = await self._outcome_in_thread(part, size)
                seconds = monotonic() - began
                meters.ran(part, seconds)
                parts += self._singly(part) if outcome is None else self._settle(part, outcome, seconds, meters)

    async def _outcome_in_thread(self, batch: dict[Reply, Array], size: int) -> Rows | Exception | None:
        """Return the result of `_outcome` in a thread, or None if it hangs."""
        loop = asyncio.get_running_loop()
        timeout_s = max(self._run_timeout_s, _HANGS * self._plan.seconds_of(size))
        running = loop.run_in_executor(self._executor, self._outcome, batch, size)
        await wait_all([running], timeout_s=timeout_s)
        if running.done():
            return running.result()
        _log.error("inference hangs", seconds=timeout_s, pictures=len(batch))
        self._leave_thread_behind(running)
        return None

    def _leave_thread_behind(self, running: asyncio.Future[Rows | Exception]) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False)  # other batches in it continue
        self._executor = _threads(self._slots)
        self._hanging += 1
        if self._hanging >= _MOST_HANGING:
            self._give_up()

        def came_back(_: object) -> None:
            self._hanging -= 1

        running.add_done_callback(came_back)

    def _singly(self, batch: dict[Reply, Array]) -> list[tuple[dict[Reply, Array], int]]:
        """Return the items of a hung batch, each to be run alone; a single item is the culprit, and is failed."""
        if len(batch) == 1:
            self._fail(
                next(iter(batch)), InferenceFailed("The model did not finish on this picture. Send another one.")
            )
            return []
        return [({reply: array}, self._plan.size_of(1)) for reply, array in reversed(batch.items())]

    def _outcome(self, batch: dict[Reply, Array], size: int) -> Rows | Exception:
        """Return the rows of a batch, or the error."""
        arrays = np.empty((size, *self._item_shape), self._item_dtype)
        for index, array in enumerate(batch.values()):
            arrays[index] = array
        arrays[len(batch) :] = array
        try:
            return self._rows(arrays)
        except Exception as exc:  # noqa: BLE001 - any exception goes to a caller
            return exc

    def _prepared(self, item: Item) -> Array:
        array = self._prepare(item)
        if array.shape != self._item_shape or array.dtype != self._item_dtype:
            raise ValueError(f"items are {self._item_dtype} {self._item_shape}, not {array.dtype} {array.shape}")
        return array

    def _rows(self, batch: Array) -> Rows:
        rows = self._run(batch)
        if len(rows) != len(batch):
            raise ValueError(f"run returned {len(rows)} rows for a batch of {len(batch)}")
        return rows

    def _settle(
        self, batch: dict[Reply, Array], outcome: Rows | Exception, seconds: float, meters: Meters
    ) -> list[tuple[dict[Reply, Array], int]]:
        """Answer every caller of the batch, or return its halves if it failed and may succeed without the culprit."""
        if not isinstance(outcome, Exception):
            meters.gave(outcome, len(batch))
            for reply, row in zip(batch, outcome, strict=False):  # padding has no caller
                self._deadlines.pop(reply, None)
                if not reply.done():
                    reply.ran_s = seconds
                    _give(reply.set_result, row)
            return []
        if len(batch) == 1:
            error = InferenceFailed("The model failed on this picture. The service's log says why.")
            error.__cause__ = outcome
            self._fail(next(iter(batch)), error)
            return []
        items, half = list(batch.items()), len(batch) // 2
        return [(dict(part), self._plan.size_of(len(part))) for part in (items[half:], items[:half])]

    def _fail(self, reply: Reply, error: Exception) -> None:
        self._waiting.pop(reply, None)
        self._idle.pop(reply, None)
        self._deadlines.pop(reply, None)
        if not reply.done():
            _give(reply.set_exception, error)

    def _expire_one(self, reply: Reply) -> None:
        self._meters.expired()
        self._fail(reply, DeadlineExceeded("The picture could not be classified before its deadline. Try again."))

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(when, self._expire)
        self._alarm_at = when

    def _expire(self) -> None:
        """Answer callers whose deadline has passed, and set the timer to the next deadline.

        One timer serves all: most requests are answered long before their deadline.
        """
        self._alarm = None
        now = asyncio.get_running_loop().time()
        for reply in [reply for reply, deadline in self._deadlines.items() if deadline <= now]:
            self._expire_one(reply)
        if self._deadlines:
            self._set_alarm(min(self._deadlines.values()))
        if self._closing:
            self._say_when_drained()


def _uncounted(*_: object) -> None:
    """Stand in for the meters of a batch that runs while the batcher is idle."""


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="batch")


async def row_for(put: Callable[[Reply], None], withdraw: Callable[[Reply], None]) -> Any:
    """Call `put` with a reply and return its row; withdraw the reply however this ends."""
    future = RowFuture()
    put(future)
    try:
        return await future
    finally:
        withdraw(future)


def stopping_error() -> ShuttingDown:
    return ShuttingDown("The service is stopping. Send the request again: another instance will take it.")


def _give(answer: Callable[[Any], None], outcome: Any) -> None:
    """Answer one caller. Its exceptions must not affect the others in its batch."""
    try:
        answer(outcome)
    except Exception:  # noqa: BLE001 - any exception belongs to that caller
        _log.exception("a caller could not take its answer")
