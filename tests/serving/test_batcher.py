"""The batcher's rules, one test each. Gates are events: nothing here waits for a clock.

What holds in a thread and on the event loop is tested in both places; a gate needs a thread to be held in.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InferenceFailed, Overloaded, ShuttingDown, UndecodableImage
from app.serving.batch_plan import BatchPlan
from app.serving.batcher import Batcher, Meters

Array = NDArray[Any]
POISON = 255
UNREADABLE = 254

in_both_places = pytest.mark.parametrize("slots", [0, 1], ids=["loop", "thread"])


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


class Preparing:
    """Prepares items as they are, remembers them, and cannot prepare UNREADABLE."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def __call__(self, array: Array) -> Array:
        self.items.append(int(array[0]))
        if UNREADABLE in array:
            raise UndecodableImage("unreadable")
        return array


class Caller:
    """A reply that keeps what it got, and every time that it got something."""

    def __init__(self) -> None:
        self.outcomes: list[Array | Exception] = []
        self.gone = False
        self.queued_s = self.prepared_s = self.ran_s = 0.0
        self.trace = None

    def done(self) -> bool:
        return self.gone or bool(self.outcomes)

    def set_result(self, row: Array) -> None:
        self.outcomes.append(row)

    def set_exception(self, error: Exception) -> None:
        self.outcomes.append(error)


class Told:
    """What a batcher told its meters."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self.ran: list[int] = []
        self.expired = self.cancelled = self.given_up = 0

    @property
    def meters(self) -> Meters:
        return Meters(
            lambda _, seconds: self.waited.append(seconds),
            lambda replies, _: self.ran.append(len(replies)),
            lambda *_: None,
            self.expire,
            self.cancel,
        )

    def expire(self) -> None:
        self.expired += 1

    def cancel(self) -> None:
        self.cancelled += 1

    def give_up(self) -> None:
        self.given_up += 1


def batcher_of(
    run: Callable[[Array], Array],
    *,
    prepare: Callable[[Array], Array] | None = None,
    plan: BatchPlan | None = None,
    largest: int = 8,
    max_waiting: int = 100,
    slots: int = 1,
    told: Told | None = None,
    run_timeout_s: float = 60.0,
) -> Batcher[Array]:
    told = told or Told()
    return Batcher(
        run,
        prepare=prepare or Preparing(),
        item_shape=(2,),
        item_dtype=np.uint8,
        plan=plan or BatchPlan.of_powers(largest),
        max_waiting=max_waiting,
        meters=told.meters,
        run_timeout_s=run_timeout_s,
        give_up=told.give_up,
        slots=slots,
    )


async def entered(run: Doubler) -> None:
    """Wait until the function has begun a batch."""
    assert await asyncio.get_running_loop().run_in_executor(None, run.entered.acquire, True, 30)


async def submitted(batcher: Batcher[Array], *values: int, deadline: float | None = None) -> list[asyncio.Task[Array]]:
    """Submit items, and return once they wait in the queue."""
    tasks = [asyncio.create_task(batcher.submit(item(value), deadline=deadline)) for value in values]
    await asyncio.sleep(0)
    return tasks


@in_both_places
async def test_every_caller_gets_its_own_row(slots: int) -> None:
    async with batcher_of(Doubler(), slots=slots) as batcher:
        rows = await asyncio.gather(*(batcher.submit(item(value)) for value in range(50)))
    assert [row[0] for row in rows] == [2 * value for value in range(50)]


@in_both_places
async def test_a_single_item_runs_alone_and_at_once(slots: int) -> None:
    run = Doubler()
    async with batcher_of(run, slots=slots) as batcher:
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


@in_both_places
@pytest.mark.parametrize("wrong", [np.zeros((3,), np.uint8), np.zeros((2,), np.float32)])
async def test_an_item_of_another_shape_or_dtype_is_refused(wrong: Array, slots: int) -> None:
    async with batcher_of(Doubler(), slots=slots) as batcher:
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


async def test_an_item_that_expires_while_it_runs_is_answered_before_its_batch_ends() -> None:
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


@in_both_places
async def test_only_the_culprit_of_a_failing_batch_fails(slots: int) -> None:
    run = Doubler()
    async with batcher_of(run, largest=8, slots=slots) as batcher:
        tasks = await submitted(batcher, 0, 1, 2, POISON, 4, 5, 6, 7)
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(rows[3], InferenceFailed)
    assert isinstance(rows[3].__cause__, RuntimeError)
    assert [row[0] for index, row in enumerate(rows) if index != 3] == [0, 2, 4, 8, 10, 12, 14]  # type: ignore[index]


@in_both_places
async def test_callers_that_fail_together_get_an_exception_each(slots: int) -> None:
    async with batcher_of(Doubler(), slots=slots) as batcher:
        rows = await asyncio.gather(*(batcher.submit(item(POISON)) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(row, InferenceFailed) for row in rows)
    assert len({id(row) for row in rows}) == 3


@in_both_places
async def test_a_run_that_returns_too_few_rows_fails_instead_of_mixing_them_up(slots: int) -> None:
    async with batcher_of(lambda batch: batch[:-1], slots=slots) as batcher:
        with pytest.raises(InferenceFailed):
            await batcher.submit(item(1))


@in_both_places
async def test_the_batcher_goes_on_after_a_failure(slots: int) -> None:
    async with batcher_of(Doubler(), slots=slots) as batcher:
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


@pytest.mark.parametrize("slots", [0, 1, 2])
async def test_many_callers_that_come_and_go_all_get_exactly_one_outcome(slots: int) -> None:
    run = Doubler()
    random = np.random.default_rng(0)
    async with batcher_of(run, largest=16, max_waiting=500, slots=slots) as batcher:
        values = random.integers(0, 256, 500)
        tasks = [asyncio.create_task(batcher.submit(item(int(value)))) for value in values]
        for task in random.choice(np.array(tasks, object), 50, replace=False):
            await asyncio.sleep(0)
            task.cancel()
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    for value, row in zip(values, rows, strict=True):
        if isinstance(row, BaseException):
            wanted = {POISON: InferenceFailed, UNREADABLE: UndecodableImage}.get(int(value), asyncio.CancelledError)
            assert isinstance(row, asyncio.CancelledError | wanted)
        else:
            assert row[0] == 2 * value


# On the event loop


async def test_without_a_slot_batches_run_on_the_event_loop_itself() -> None:
    threads: list[str] = []

    def run(batch: Array) -> Array:
        threads.append(threading.current_thread().name)
        return batch

    async with batcher_of(run, slots=0) as batcher:
        await asyncio.gather(*(batcher.submit(item(value)) for value in range(20)))
    assert set(threads) == {threading.main_thread().name}


async def test_on_the_event_loop_a_batch_is_filled_with_what_waits() -> None:
    run = Doubler()
    async with batcher_of(run, largest=4, slots=0) as batcher:
        rows = await asyncio.gather(*(batcher.submit(item(value)) for value in range(6)))
    assert run.batches == [[0, 1, 2, 3], [4, 5]]
    assert [row[0] for row in rows] == [0, 2, 4, 6, 8, 10]


class Turns:
    """Runs batches of one in a hundredth of a second each, by a clock that nothing else moves; notes what happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr("app.serving.batcher.monotonic", lambda: self.now)

    def __call__(self, batch: Array) -> Array:
        self.now += 0.0101
        self.order.append(f"run {batch[0, 0]}")
        return batch

    async def call(self, batcher: Batcher[Array], value: int) -> None:
        await batcher.submit(item(value))
        self.order.append(f"answered {value}")


async def test_on_the_event_loop_answers_leave_between_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    async with batcher_of(turns, largest=1, slots=0) as batcher:
        await asyncio.gather(*(turns.call(batcher, value) for value in (1, 2, 3)))
    assert turns.order == ["run 1", "answered 1", "run 2", "answered 2", "run 3", "answered 3"]


@pytest.mark.parametrize(("elsewhere_s", "batches"), [(0.005, 1), (0.025, 3), (10, 5)])
async def test_on_the_event_loop_batches_get_as_much_time_as_everything_else_had(
    monkeypatch: pytest.MonkeyPatch, elsewhere_s: float, batches: int
) -> None:
    turns = Turns(monkeypatch)
    async with batcher_of(turns, largest=1, slots=0) as batcher:
        turns.now += elsewhere_s
        await asyncio.gather(*(turns.call(batcher, value) for value in range(8)))
    assert turns.order[: batches + 1] == [*(f"run {value}" for value in range(batches)), "answered 0"]


async def test_on_the_event_loop_a_full_queue_refuses_at_once() -> None:
    async with batcher_of(Doubler(), max_waiting=2, slots=0) as batcher:
        tasks = await submitted(batcher, 1, 2)
        with pytest.raises(Overloaded):
            await batcher.submit(item(3))
        assert [row[0] for row in await asyncio.gather(*tasks)] == [2, 4]


async def test_on_the_event_loop_an_expired_item_is_never_run() -> None:
    run, prepare = Doubler(), Preparing()
    async with batcher_of(run, prepare=prepare, slots=0) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(item(2), deadline=asyncio.get_running_loop().time())
        assert batcher.waiting == 0
    assert (run.batches, prepare.items) == ([], [])


# Preparing


@in_both_places
async def test_an_item_that_cannot_be_prepared_fails_alone_with_its_own_error(slots: int) -> None:
    run = Doubler()
    async with batcher_of(run, largest=4, slots=slots) as batcher:
        tasks = await submitted(batcher, 1, UNREADABLE, 3, UNREADABLE)
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert run.batches == [[1, 3]]
    assert [type(row) for row in rows[1::2]] == [UndecodableImage, UndecodableImage]
    assert [row[0] for row in rows[::2]] == [2, 6]  # type: ignore[index]


@in_both_places
async def test_a_batch_of_which_nothing_can_be_prepared_is_not_run(slots: int) -> None:
    run = Doubler()
    async with batcher_of(run, largest=2, slots=slots) as batcher:
        tasks = await submitted(batcher, UNREADABLE, UNREADABLE, 3)
        rows = await asyncio.gather(*tasks, return_exceptions=True)
    assert run.batches == [[3]]
    assert rows[2][0] == 6  # type: ignore[index]


@in_both_places
async def test_a_withdrawn_item_is_never_prepared(slots: int) -> None:
    run, prepare = Doubler(), Preparing()
    callers = [Caller(), Caller(), Caller()]
    async with batcher_of(run, prepare=prepare, slots=slots) as batcher:
        for value, caller in enumerate(callers):
            batcher.put(item(value), caller, deadline=asyncio.get_running_loop().time() + 3600)
        batcher.withdraw(callers[1])
        assert batcher.waiting == 2
        await batcher.submit(item(9))
    assert prepare.items == [0, 2, 9]
    assert [len(caller.outcomes) for caller in callers] == [1, 0, 1]


@in_both_places
async def test_an_item_whose_caller_is_gone_unsaid_is_never_prepared(slots: int) -> None:
    prepare, gone = Preparing(), Caller()
    async with batcher_of(Doubler(), prepare=prepare, slots=slots) as batcher:
        batcher.put(item(1), gone)
        gone.gone = True
        await batcher.submit(item(2))
    assert prepare.items == [2]
    assert gone.outcomes == []


async def test_items_are_prepared_when_their_batch_is_filled_and_not_before() -> None:
    run, prepare = Doubler(), Preparing()
    run.gate.clear()
    async with batcher_of(run, prepare=prepare) as batcher:
        tasks = await submitted(batcher, 1)
        await entered(run)
        tasks += await submitted(batcher, 2, 3)
        assert prepare.items == [1]
        run.gate.set()
        await asyncio.gather(*tasks)
    assert prepare.items == [1, 2, 3]


# Deadlines


class Timers:
    """Counts the timers that an event loop is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.when: list[float] = []
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def counted(when: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
            self.when.append(when)
            return call_at(when, *rest, **more)

        monkeypatch.setattr(loop, "call_at", counted)


async def test_one_timer_serves_many_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, later = Timers(monkeypatch), asyncio.get_running_loop().time() + 3600
    async with batcher_of(Doubler(), slots=0) as batcher:
        for _ in range(10):
            callers = [Caller() for _ in range(8)]
            for index, caller in enumerate(callers):
                batcher.put(item(1), caller, deadline=later + index)
            await batcher.submit(item(1), deadline=later)
            assert all(caller.done() for caller in callers)
    assert timers.when == [later]


async def test_an_earlier_deadline_that_comes_later_is_kept_and_the_first_one_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run) as batcher:
        tasks = await submitted(batcher, 1)
        await entered(run)
        timers, now = Timers(monkeypatch), asyncio.get_running_loop().time()
        tasks += await submitted(batcher, 2, 3, deadline=now + 3600)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(item(4), deadline=now)
        assert batcher.waiting == 2
        assert (timers.when[0], timers.when[1], timers.when[-1]) == (now + 3600, now, now + 3600)
        run.gate.set()
        assert [row[0] for row in await asyncio.gather(*tasks)] == [2, 4, 6]


def test_deadlines_that_have_passed_already_are_no_defect_on_the_loop_that_serves() -> None:
    """Found by schemathesis: uvloop's timer for the past does not know its time, and a second picture asked it."""

    async def two_late_ones() -> list[BaseException | None]:
        async with batcher_of(Doubler(), slots=0) as batcher:
            late = asyncio.get_running_loop().time() - 1
            tasks = [asyncio.ensure_future(batcher.submit(item(value), deadline=late)) for value in (1, 2)]
            await asyncio.wait(tasks)
            return [task.exception() for task in tasks]

    assert [type(error) for error in uvloop.run(two_late_ones())] == [DeadlineExceeded, DeadlineExceeded]


async def test_an_answered_caller_is_not_answered_again_at_its_deadline() -> None:
    caller, sentinel = Caller(), Caller()
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run, largest=1) as batcher:
        now = asyncio.get_running_loop().time()
        batcher.put(item(1), caller, deadline=now)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(item(2), deadline=now)
        run.gate.set()
        batcher.put(item(3), sentinel)
        await batcher.submit(item(4))
    assert [type(outcome) for outcome in caller.outcomes] == [DeadlineExceeded]
    assert len(sentinel.outcomes) == 1


# Closing


@in_both_places
async def test_closing_answers_every_reply_that_waits(slots: int) -> None:
    callers = [Caller() for _ in range(20)]
    batcher = batcher_of(Doubler(), largest=4, slots=slots)
    for caller in callers:
        batcher.put(item(1), caller)
    await batcher.aclose(grace_s=30)
    assert [[outcome[0] for outcome in caller.outcomes] for caller in callers] == [[2]] * 20  # type: ignore[index]
    with pytest.raises(ShuttingDown):
        batcher.put(item(1), Caller())


@in_both_places
async def test_closing_does_not_wait_for_callers_that_are_gone(slots: int) -> None:
    callers = [Caller() for _ in range(5)]
    batcher = batcher_of(Doubler(), slots=slots)
    for caller in callers:
        batcher.put(item(1), caller)
    closing = asyncio.create_task(batcher.aclose(grace_s=30))
    for caller in callers:
        batcher.withdraw(caller)
    async with asyncio.timeout(10):
        await closing
    assert all(caller.outcomes == [] for caller in callers)


async def test_replies_that_wait_behind_a_batch_that_hangs_are_told_so() -> None:
    run = Doubler()
    run.gate.clear()
    callers = [Caller() for _ in range(3)]
    batcher = batcher_of(run, largest=1)
    for caller in callers:
        batcher.put(item(1), caller, deadline=asyncio.get_running_loop().time() + 3600)
    await entered(run)
    await batcher.aclose(grace_s=0)
    await asyncio.sleep(0)  # a cancelled batch answers in the next turn
    run.gate.set()
    assert [[type(outcome) for outcome in caller.outcomes] for caller in callers] == [[ShuttingDown]] * 3


@pytest.mark.parametrize("iterations", range(8))
@in_both_places
async def test_in_whatever_moment_it_ends_every_caller_gets_exactly_one_outcome(slots: int, iterations: int) -> None:
    run = Doubler()
    if slots:
        run.gate.clear()
    callers = [Caller() for _ in range(5)]
    batcher = batcher_of(run, largest=2, slots=slots)
    for caller in callers:
        batcher.put(item(1), caller)
    for _ in range(iterations):
        await asyncio.sleep(0)
    batcher.close()
    assert [len(caller.outcomes) for caller in callers] == [1] * 5
    run.gate.set()
    if batcher._executor is not None:
        await asyncio.to_thread(batcher._executor.shutdown)  # what still ran has nobody to answer
    assert [len(caller.outcomes) for caller in callers] == [1] * 5


async def test_an_end_cuts_the_grace_of_a_close_that_waits() -> None:
    run = Doubler()
    run.gate.clear()
    batcher = batcher_of(run)
    batcher.put(item(1), Caller())
    await entered(run)
    closing = asyncio.create_task(batcher.aclose(grace_s=3600))
    await asyncio.sleep(0)
    batcher.close()
    async with asyncio.timeout(10):
        await closing
    run.gate.set()


# What is told


@in_both_places
async def test_the_meters_are_told_of_waits_and_of_batches_without_their_padding(slots: int) -> None:
    told = Told()
    async with batcher_of(Doubler(), slots=slots, told=told) as batcher:
        await asyncio.gather(*(batcher.submit(item(value)) for value in range(3)))
    assert told.ran == [3]
    assert len(told.waited) == 3
    assert all(0 <= seconds < 30 for seconds in told.waited)


async def test_a_caller_that_is_gone_before_its_turn_counts_as_cancelled_once() -> None:
    run, told = Doubler(), Told()
    async with batcher_of(run, told=told) as batcher:
        run.gate.clear()
        first = asyncio.create_task(batcher.submit(item(1)))
        await entered(run)
        (gone,) = await submitted(batcher, 2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        run.gate.set()
        await first
    assert (told.cancelled, told.expired) == (1, 0)


# What would be too late


@in_both_places
async def test_an_item_whose_deadline_precedes_its_batch_is_neither_prepared_nor_run(
    slots: int,
) -> None:
    run, preparing, told = Doubler(), Preparing(), Told()
    plan = BatchPlan({1: 1000.0})  # seconds that a batch takes
    async with batcher_of(run, prepare=preparing, plan=plan, slots=slots, told=told) as batcher:
        soon = asyncio.get_running_loop().time() + 100
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(item(1), deadline=soon)
        await batcher.submit(item(2), deadline=soon + 10_000)
    assert preparing.items == [2]
    assert run.batches == [[2]]
    assert told.expired == 1


# What hangs


class Hanging(Doubler):
    """A Doubler that does not come back from a batch with POISON in it before it is set free."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def __call__(self, batch: Array) -> Array:
        if POISON in batch:
            self.entered.release()
            assert self.free.wait(timeout=60)
        return super().__call__(np.where(batch == POISON, 0, batch))


async def test_of_a_batch_that_hangs_only_the_culprit_fails() -> None:
    run = Hanging()
    async with batcher_of(run, run_timeout_s=0.05) as batcher:
        tasks = await submitted(batcher, 1, POISON, 3)
        rows = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(rows[1], InferenceFailed)
        assert [row[0] for row in rows[::2] if not isinstance(row, BaseException)] == [2, 6]
        assert (await batcher.submit(item(4)))[0] == 8
        run.free.set()


async def test_a_batch_may_take_many_times_what_it_was_measured_to_take() -> None:
    run = Doubler()
    async with batcher_of(run, plan=BatchPlan({1: 1.0}), run_timeout_s=0.001) as batcher:
        run.gate.clear()
        (task,) = await submitted(batcher, 1)
        await entered(run)
        await asyncio.sleep(0.05)  # far beyond the time-out, far below what is many times a second
        run.gate.set()
        assert (await task)[0] == 2


async def test_when_too_many_threads_hang_the_batcher_gives_up_its_worker() -> None:
    run, told = Hanging(), Told()
    async with batcher_of(run, run_timeout_s=0.02, told=told, largest=1) as batcher:
        for count in range(3):
            assert told.given_up == 0, count
            with pytest.raises(InferenceFailed, match="did not finish"):
                await batcher.submit(item(POISON))
        assert told.given_up == 1
        run.free.set()


async def test_one_batch_of_what_waits_can_be_run_at_once_on_the_event_loop() -> None:
    run, callers = Doubler(), [Caller() for _ in range(6)]
    async with batcher_of(run, largest=4, slots=0) as batcher:
        for value, caller in enumerate(callers):
            batcher.put(item(value), caller)
        batcher.run_waiting()
        assert run.batches == [[0, 1, 2, 3]]
        assert [caller.done() for caller in callers] == [True] * 4 + [False] * 2
        for caller in callers[4:]:
            batcher.withdraw(caller)


# What runs while nothing else does


@in_both_places
async def test_an_idle_item_runs_alone_and_after_all_others(slots: int) -> None:
    run, told = Doubler(), Told()
    async with batcher_of(run, slots=slots, told=told) as batcher:
        idle = [asyncio.create_task(batcher.submit(item(100 + value), idle=True)) for value in range(2)]
        others = await submitted(batcher, 1, 2, 3)
        assert [row[0] for row in await asyncio.gather(*others, *idle)] == [2, 4, 6, 200, 202]
    assert [set(batch) for batch in run.batches] == [{1, 2, 3}, {100}, {101}]
    assert sum(told.ran) == 3  # the meters see no idle items


async def test_others_wait_for_one_idle_item_at_most() -> None:
    run = Doubler()
    run.gate.clear()
    async with batcher_of(run) as batcher:
        idle = [asyncio.create_task(batcher.submit(item(100 + value), idle=True)) for value in range(3)]
        await entered(run)
        others = await submitted(batcher, 1, 2)
        run.gate.set()
        await asyncio.gather(*idle, *others)
    assert [set(batch) for batch in run.batches] == [{100}, {1, 2}, {101}, {102}]


@in_both_places
async def test_an_idle_item_that_nobody_waits_for_is_not_run(slots: int) -> None:
    run = Doubler()
    async with batcher_of(run, slots=slots) as batcher:
        gone, unreadable = Caller(), asyncio.create_task(batcher.submit(item(UNREADABLE), idle=True))
        batcher.put_idle(item(7), gone)
        batcher.withdraw(gone)
        with pytest.raises(UndecodableImage):
            await unreadable
        late = Caller()
        batcher.put_idle(item(8), late)
        batcher.close()
        assert isinstance(late.outcomes[0], ShuttingDown)
        with pytest.raises(ShuttingDown):
            batcher.put_idle(item(9), Caller())
    assert run.batches == []
