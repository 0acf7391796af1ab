"""Wait for tasks and futures that may end meanwhile, or have ended already."""

import asyncio
from collections.abc import Iterable
from typing import Any


async def wait_all(tasks: Iterable[asyncio.Future[Any]], *, timeout_s: float | None = None) -> None:
    """Return when all of these have ended, or after `timeout_s`. None is cancelled. The collection may be empty.

    It is read once, at the beginning, so the caller may add and remove tasks meanwhile. `asyncio.wait` itself fails for
    an empty collection, such as one whose last task has just been removed.
    """
    left = {task for task in tasks if not task.done()}
    if left:
        await asyncio.wait(left, timeout=timeout_s)  # noqa: TID251 - it is not empty
