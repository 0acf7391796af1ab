"""Process many pieces of work concurrently and yield the results in order, in bounded memory."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_AHEAD = 2
"""Finished results that may wait for an earlier one, per piece in progress."""


async def in_order(
    take: Callable[[], Awaitable[Piece | None]],
    work: Callable[[Piece], Coroutine[Any, Any, Result]],
    *,
    at_once: int,
) -> AsyncGenerator[Result, None]:
    """Yield the result of `work` for each piece from `take`, as soon as it and those before it are done.

    `take` is called when fewer than `at_once` pieces are in progress, so it can put everything that is queued by then
    into one piece. It returns None at the end.
    """
    taking: asyncio.Future[Piece | None] | None = None
    ended = False
    tasks: deque[asyncio.Task[Result]] = deque()
    try:
        while not ended or tasks:
            if tasks and tasks[0].done():
                yield tasks.popleft().result()
                continue
            busy = [task for task in tasks if not task.done()]
            if taking is None and not ended and len(busy) < at_once and len(tasks) < _AHEAD * at_once:
                taking = asyncio.ensure_future(take())
            waited_for: list[asyncio.Future[Any]] = [*busy, *([taking] if taking else [])]
            # Not empty: without a task to wait for there is room to take.
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)  # noqa: TID251
            if taking is not None and taking.done():
                piece, taking = taking.result(), None
                if piece is None:
                    ended = True
                else:
                    tasks.append(asyncio.create_task(work(piece)))
    finally:
        left: list[asyncio.Future[Any]] = [*tasks, *([taking] if taking else [])]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def in_order_by_threads(pieces: Iterable[Piece], work: Callable[[Piece], Result], *, at_once: int) -> Iterator[Result]:
    """Yield the result of `work` for each piece, in order, with `at_once` threads."""
    futures: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(at_once, thread_name_prefix="client") as threads:
        try:
            for piece in pieces:
                futures.append(threads.submit(work, piece))
                if len(futures) >= _AHEAD * at_once:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()
