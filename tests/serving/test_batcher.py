"""The batcher's rules, one test each. Gates are events: nothing here waits for a clock."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, Overloaded, ShuttingDown
from app.serving.batcher import Batcher, padded_sizes

Array = NDArray[Any]
POISON = 255


def item(value: int) -> Array:
    return np.full((2,), value, np.uint8)


class Doubler:
    """Doubles every row, remembers the batches, fails on POISON, and can be held at a gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, batch: Array) -> Array:
        self.entered.release()
        self.gate.wait(timeout=30)
        self.batches.append(batch[:, 0].tolist())
        if POISON in batch:
            raise RuntimeError("poisoned")
        return batch.astype(np.float32) * 2


def batcher_of(run: Callable[[Array], Array], *, largest: int = 8, max_waiting: int = 100, slots: int = 1) -> Batcher:
    return Batcher(
        run,
        item_shape=(2,),
        item_dtype=np.uint8,
        sizes=padded_sizes(largest),
        max_waiting=max_waiting,
        slots=slots,
    )


async def entered(run: Doubler) -> None:
    """Wait until the function has begun a batch."""
    assert await asyncio.get_running_loop().run_in_executor(None, run.entered.acquire, True, 30)


async def submitted(batcher: Batcher, *values: int, deadline: float | None = None) -> list[asyncio.Task[Array]]:
    """Submit items, and return once they wait in the queue."""
    tasks = [asyncio.create_task(batcher.submit(item(value), deadline=deadline)) for value in values]
    await asyncio.sleep(0)
    return tasks


async def test_every_caller_gets_its_own_row() -> None:
    async with batcher_of(Doubler()) as batcher:
        rows = await asyncio.gather(*(batcher.submit(item(value)) for value in range(50)))
    assert [row[0] for row in rows] == [2 * value for value in range(50)]


async def test_a_single_item_runs_alone_and_at_once() -> None:
    run = Doubler()
    async with batcher_of(run) as batcher:
        await batcher.submit(item(3))
    assert run.batches == [[3]]


async def test_a_batch_is_filled_with_what_waited_while_the_slot_was_taken() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run, largest=4) as batcher:
        first = await submitted(batcher, 1)
        await entered(run)
        rest = await submitted(batcher, 2, 3, 4, 5, 6)
        assert batcher.waiting == 5
        run.gate.set()
        await asyncio.gather(*first, *rest)
    assert run.batches == [[1], [2, 3, 4, 5], [6]]


async def test_two_slots_run_two_batches_side_by_side() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run, largest=1, slots=2) as batcher:
        tasks = await submitted(batcher, 1, 2, 3)
        await entered(run)
        await entered(run)
        assert batcher.waiting == 1
        run.gate.set()
        await asyncio.gather(*tasks)


async def test_batches_are_padded_to_warmed_sizes_and_the_padding_is_never_seen() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run, largest=8) as batcher:
        first = await submitted(batcher, 1)
        await entered(run)
        rest = await submitted(batcher, 2, 3, 4)
        run.gate.set()
        rows = await asyncio.gather(*first, *rest)
    assert run.batches == [[1], [2, 3, 4, 4]]
    assert [row[0] for row in rows] == [2, 4, 6, 8]


def test_padded_sizes_are_powers_of_two_up_to_the_largest() -> None:
    assert padded_sizes(1) == [1]
    assert padded_sizes(8) == [1, 2, 4, 8]
    assert padded_sizes(20) == [1, 2, 4, 8, 16, 20]


async def test_a_full_queue_refuses_at_once() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run, max_waiting=2) as batcher:
        first = await submitted(batcher, 1)
        await entered(run)
        waiting = await submitted(batcher, 2, 3)
        with pytest.raises(Overloaded):
            await batcher.submit(item(4))
        run.gate.set()
        await asyncio.gather(*first, *waiting)


@pytest.mark.parametrize("wrong", [np.zeros((3,), np.uint8), np.zeros((2,), np.float32)])
async def test_an_item_of_another_shape_or_dtype_is_refused(wrong: Array) -> None:
    async with batcher_of(Doubler()) as batcher:
        with pytest.raises(ValueError, match="items are uint8"):
            await batcher.submit(wrong)


async def test_a_cancelled_caller_gives_its_place_back_and_is_never_run() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run, max_waiting=1) as batcher:
        first = await submitted(batcher, 1)
        await entered(run)
        (cancelled,) = await submitted(batcher, 2)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert batcher.waiting == 0
        (taken,) = await submitted(batcher, 3)
        run.gate.set()
        await asyncio.gather(*first, taken)
    assert run.batches == [[1], [3]]


async def test_a_cancelled_caller_does_not_disturb_its_batch() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run) as batcher:
        tasks = await submitted(batcher, 1, 2, 3)
        await entered(run)
        tasks[1].cancel()
        run.gate.set()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(rows[1], asyncio.CancelledError)
    assert [rows[0][0], rows[2][0]] == [2, 6]  # type: ignore[index]


async def test_an_expired_item_is_answered_at_its_deadline_and_never_run() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run) as batcher:
        first = await submitted(batcher, 1)
        await entered(run)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(item(2), deadline=asyncio.get_running_loop().time())
        assert batcher.waiting == 0
        run.gate.set()
        await asyncio.gather(*first)
    assert run.batches == [[1]]


async def test_an_item_that_expires_while_it_runs_is_answered_without_waiting_for_the_batch() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run) as batcher:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(batcher.submit(item(1), deadline=loop.time() + 0.05))
        await entered(run)
        with pytest.raises(DeadlineExceeded):
            await task
        assert run.batches == []
        run.gate.set()


async def test_only_the_culprit_of_a_failing_batch_fails() -> None:
    run = Doubler()
    async with batcher_of(run, largest=8) as batcher:
        tasks = await submitted(batcher, 0, 1, 2, POISON, 4, 5, 6, 7)
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(rows[3], InferenceFailed)
    assert isinstance(rows[3].__cause__, RuntimeError)
    assert [row[0] for index, row in enumerate(rows) if index != 3] == [0, 2, 4, 8, 10, 12, 14]  # type: ignore[index]


async def test_callers_that_fail_together_get_an_exception_each() -> None:
    async with batcher_of(Doubler()) as batcher:
        rows = await asyncio.gather(*(batcher.submit(item(POISON)) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(row, InferenceFailed) for row in rows)
    assert len({id(row) for row in rows}) == 3


async def test_a_run_that_returns_too_few_rows_fails_instead_of_mixing_them_up() -> None:
    async with batcher_of(lambda batch: batch[:-1]) as batcher:
        with pytest.raises(InferenceFailed):
            await batcher.submit(item(1))


async def test_the_batcher_goes_on_after_a_failure() -> None:
    async with batcher_of(Doubler()) as batcher:
        with pytest.raises(InferenceFailed):
            await batcher.submit(item(POISON))
        row = await batcher.submit(item(1))
    assert row[0] == 2


async def test_closing_finishes_what_was_accepted_and_refuses_what_comes_after() -> None:
    run = Doubler()
    run.gate.clear()
    batcher = batcher_of(run, largest=1)
    tasks = await submitted(batcher, 1, 2, 3)
    await entered(run)
    closing = asyncio.create_task(batcher.aclose(grace_s=30))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        await batcher.submit(item(4))
    run.gate.set()
    await closing
    assert [row[0] for row in await asyncio.gather(*tasks)] == [2, 4, 6]


async def test_what_is_not_done_within_the_grace_gets_an_answer_all_the_same() -> None:
    run = Doubler()
    run.gate.clear()
    batcher = batcher_of(run, largest=1)
    tasks = await submitted(batcher, 1, 2)
    await entered(run)
    await batcher.aclose(grace_s=0)
    rows = await asyncio.gather(*tasks, return_exceptions=True)
    run.gate.set()
    assert all(isinstance(row, ShuttingDown) for row in rows)


async def test_many_callers_that_come_and_go_all_get_exactly_one_outcome() -> None:
    run = Doubler()
    random = np.random.default_rng(0)
    async with batcher_of(run, largest=16, max_waiting=500, slots=2) as batcher:
        values = random.integers(0, 256, 500)
        tasks = [asyncio.create_task(batcher.submit(item(int(value)))) for value in values]
        for task in random.choice(np.array(tasks, object), 50, replace=False):
            await asyncio.sleep(0)
            task.cancel()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    for value, row in zip(values, rows, strict=True):
        if isinstance(row, BaseException):
            assert isinstance(row, asyncio.CancelledError | InferenceFailed)
            assert isinstance(row, asyncio.CancelledError) or value == POISON
        else:
            assert row[0] == 2 * value
