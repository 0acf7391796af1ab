"""Wait for tasks and futures that may end meanwhile, or have ended already."""

import asyncio
from collections.abc import Iterable
from typing import Any


async def wait_all(tasks: Iterable[asyncio.Future[Any]], *, timeout_s: float | None = None) -> None:
    """Return when all of these have ended, or after `timeout_s`. None is cancelled, and none need be left.

    They are looked at once, when this begins to run: whoever collects them may go on adding and removing. By itself,
    `asyncio.wait` fails if the last of them has just been removed.
    """
    left = {task for task in tasks if not task.done()}
    if left:
        await asyncio.wait(left, timeout=timeout_s)  # noqa: TID251 - it is not empty
