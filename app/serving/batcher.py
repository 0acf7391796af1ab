"""Run many small calls together: arrays in, one batch through a function, each caller's own row out.

It knows nothing of pictures, models or engines. Its rules:

- a free slot is taken first, and the batch is then filled with what waits: an idle batcher adds no delay, and under
  load a batch holds what arrived while the one before it ran;
- every item has the same shape and dtype, so no item can spoil a batch;
- the queue is bounded, and what does not fit is refused at once;
- a caller that is cancelled or whose deadline passes leaves the queue, and its batch goes on without it;
- every caller gets exactly one result, or one exception of its own: a batch that fails is bisected until only the
  culprits fail;
- batches are padded to one of a few sizes, where the function is faster on sizes that it has seen.

The order "slot first, then fill" is Triton's; the care for each future is Ray Serve's.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, Overloaded, ShuttingDown

Array = NDArray[Any]
_Waiting = dict[asyncio.Future[Array], Array]


class Batcher:
    """An async context manager around `run`: (N, *item_shape) → (N, …), called in threads of its own.

    `slots` batches run at once. `sizes` are the batch sizes to pad to, the largest of them the most that run together.
    """

    def __init__(
        self,
        run: Callable[[Array], Array],
        *,
        item_shape: tuple[int, ...],
        item_dtype: type[np.generic],
        sizes: Sequence[int],
        max_waiting: int,
        slots: int = 1,
    ) -> None:
        self._run = run
        self._item_shape = item_shape
        self._item_dtype = np.dtype(item_dtype)
        self._sizes = sorted(sizes)
        self._max_waiting = max_waiting
        self._free_slots = slots
        self._executor = ThreadPoolExecutor(slots, thread_name_prefix="batch")
        self._waiting: _Waiting = {}  # in order of arrival; a future that is done is never in it
        self._running: set[asyncio.Task[None]] = set()
        self._dispatch_is_due = False
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def waiting(self) -> int:
        """The number of items that no batch has taken yet."""
        return len(self._waiting)

    async def submit(self, item: Array, *, deadline: float | None = None) -> Array:
        """Return the row that `run` gave for `item`.

        `deadline` is in seconds of the event loop's clock. Raises Overloaded when the queue is full, ShuttingDown
        after `aclose`, DeadlineExceeded, or InferenceFailed where `run` failed on this very item.
        """
        if self._closing:
            raise ShuttingDown("The service is stopping. Send the request again: another instance will take it.")
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} pictures are waiting already. Try again in a moment.")
        if item.shape != self._item_shape or item.dtype != self._item_dtype:
            raise ValueError(f"items are {self._item_dtype} {self._item_shape}, this one is {item.dtype} {item.shape}")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Array] = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, _expire, future)
        self._waiting[future] = item
        self._schedule_dispatch()
        try:
            return await future
        finally:
            self._waiting.pop(future, None)
            if timer is not None:
                timer.cancel()

    async def aclose(self, grace_s: float = 0.0) -> None:
        """Refuse new items, give those accepted `grace_s` seconds to finish, and fail the rest with ShuttingDown."""
        self._closing = True
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while (self._waiting or self._running) and (left := end - loop.time()) > 0:
            accepted: list[asyncio.Future[Any]] = [*self._running, *self._waiting]
            await asyncio.wait(accepted, timeout=left)
        for future in self._waiting:
            if not future.done():
                future.set_exception(ShuttingDown("The service stopped before this picture's turn came."))
        for task in self._running:
            task.cancel()
        # A run that hangs cannot be stopped from here; its thread is left behind, and nobody waits for it.
        self._executor.shutdown(wait=not self._running, cancel_futures=True)

    def _schedule_dispatch(self) -> None:
        # Two turns of the event loop later, so that requests which are being read in this turn share the batch. It is
        # no timer: with nothing else to do, two turns take microseconds.
        if not self._dispatch_is_due and self._free_slots:
            self._dispatch_is_due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_is_due = False
        while self._free_slots and self._waiting:
            batch: _Waiting = {}
            for future in list(islice(self._waiting, self._sizes[-1])):
                item = self._waiting.pop(future)
                if not future.done():  # cancelled or expired in this very turn
                    batch[future] = item
            if batch:
                self._free_slots -= 1
                task = asyncio.get_running_loop().create_task(self._run_batch(batch))
                self._running.add(task)
                task.add_done_callback(self._release_slot)

    def _release_slot(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free_slots += 1
        self._dispatch()

    async def _run_batch(self, batch: _Waiting) -> None:
        """Run `batch`, halving it where it fails, and settle every one of its futures."""
        loop = asyncio.get_running_loop()
        pending = [batch]
        try:
            while pending:
                part = {future: item for future, item in pending.pop().items() if not future.done()}
                if not part:
                    continue
                try:
                    rows = await loop.run_in_executor(self._executor, self._run_padded, list(part.values()))
                except Exception as exc:  # noqa: BLE001 - whatever it is belongs to a caller
                    if len(part) == 1:
                        _fail(next(iter(part)), exc)
                        continue
                    items, half = list(part.items()), len(part) // 2
                    pending += [dict(items[half:]), dict(items[:half])]
                else:
                    for future, row in zip(part, rows, strict=True):
                        if not future.done():
                            future.set_result(row)
        finally:
            for future in batch:  # only where this task was cancelled
                if not future.done():
                    future.set_exception(ShuttingDown("The service stopped while this picture was being classified."))

    def _run_padded(self, items: list[Array]) -> Array:
        count = len(items)
        size = next(size for size in self._sizes if size >= count)
        batch = np.empty((size, *self._item_shape), self._item_dtype)
        np.stack(items, out=batch[:count])
        batch[count:] = items[-1]
        rows = self._run(batch)
        if len(rows) != size:
            raise ValueError(f"run returned {len(rows)} rows for a batch of {size}")
        return rows[:count]


def padded_sizes(largest: int) -> list[int]:
    """Return the powers of two below `largest`, and `largest` itself."""
    return [*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest]


def _expire(future: asyncio.Future[Array]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("The deadline passed before the picture was classified. Try again."))


def _fail(future: asyncio.Future[Array], cause: Exception) -> None:
    if not future.done():
        error = InferenceFailed("The model failed on this picture. The service's log says why.")
        error.__cause__ = cause
        future.set_exception(error)
