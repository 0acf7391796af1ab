"""From names to printed answers: read ahead, classify a few batches concurrently, write in order."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import chain

from app.cli.predict.outputs import Output
from app.cli.predict.pictures import Found, Picture, Unreadable, find, lines_of, read
from app.cli.predict.progress import Progress
from app.cli.predict.read_ahead import Read, ReadAhead
from app.client import BATCH_BYTES, BATCH_SIZE, Failure, Outcome, in_order
from app.contract.picture_files import LeftOut, describe_left_out

Classify = Callable[[Sequence[bytes]], Awaitable[list[Outcome]]]
"""Returns the outcome of each encoded picture, in order."""


def predict_all(
    arguments: Sequence[str],
    files_from: str | None,
    opened: AbstractAsyncContextManager[Classify],
    output: Output,
    *,
    at_once: int,
) -> int:
    """Write the prediction for every named picture; return how many have none.

    Each failure is a line on standard error; files that were left out of folders follow at the end. Raises the
    ImageclassError that ends the command early.
    """
    # If the results themselves are on the terminal, they show how far it has come.
    shown = sys.stderr.isatty() and not sys.stdout.isatty()
    total = sum(1 for _ in find(arguments, [])) if shown and files_from is None else None
    listed: Iterable[str | Unreadable] = () if files_from is None else lines_of(files_from)
    left_out: list[LeftOut] = []
    found = find(chain(arguments, listed), left_out)
    with Progress(total=total, shown=shown) as progress:
        failed = asyncio.run(_predict(found, opened, output, progress, at_once=at_once))
        if line := describe_left_out(left_out):
            progress.say(line)
    return failed


async def _predict(
    found: Iterable[Found | Unreadable],
    opened: AbstractAsyncContextManager[Classify],
    output: Output,
    progress: Progress,
    *,
    at_once: int,
) -> int:
    failed = 0
    async with opened as classify:

        async def work(batch: list[Read]) -> tuple[list[Read], list[Outcome]]:
            encoded = [each.data for each in batch if isinstance(each, Picture)]
            return batch, await classify(encoded) if encoded else []

        pictures = (each if isinstance(each, Unreadable) else read(each) for each in found)
        reading = ReadAhead(pictures, batch_size=BATCH_SIZE, batch_bytes=BATCH_BYTES)
        async with aclosing(in_order(reading.take, work, at_once=at_once)) as done:
            async for batch, outcomes in done:
                answered = iter(outcomes)
                for each in batch:
                    outcome = Failure(each.reason, each.code) if isinstance(each, Unreadable) else next(answered)
                    if isinstance(outcome, Failure):
                        failed += 1
                        progress.say(f"error: {each.name}: {outcome.error}")
                    else:
                        output.write(each.name, outcome)
                output.flush()
                progress.advance(len(batch))
        output.close()
    return failed
