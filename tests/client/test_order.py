"""Work that is done at once comes back in order, and little of it is held."""

import asyncio

import pytest

from app.client import in_order


class Pieces:
    """Gives the numbers from 0, and keeps how many were taken."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.taken = 0

    async def take(self) -> int | None:
        if self.taken == self._count:
            return None
        self.taken += 1
        return self.taken - 1


async def test_results_come_in_the_order_of_their_pieces_whichever_is_done_first() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(piece: int) -> int:
        await gates[piece].wait()
        if piece:
            gates[piece - 1].set()  # the last is done first
        return piece

    gates[2].set()
    assert [result async for result in in_order(Pieces(3).take, work, at_once=3)] == [0, 1, 2]


async def test_no_more_are_taken_than_may_be_worked_on_and_wait() -> None:
    pieces = Pieces(100)
    first = asyncio.Event()
    others_done = asyncio.Event()

    async def work(piece: int) -> int:
        if piece == 0:
            await first.wait()
        elif piece == 3:
            others_done.set()
        return piece

    results = in_order(pieces.take, work, at_once=2)
    coming = asyncio.ensure_future(anext(results))
    await others_done.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert pieces.taken == 4  # the first, and three that are done and wait for it
    first.set()
    assert [await coming, *[result async for result in results]] == list(range(100))


async def test_a_failure_ends_the_rest() -> None:
    cancelled = []

    async def work(piece: int) -> int:
        if piece == 0:
            raise ValueError("broken")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(piece)
            raise
        return piece

    with pytest.raises(ValueError, match="broken"):
        async for _ in in_order(Pieces(3).take, work, at_once=3):
            pass
    assert set(cancelled) <= {1, 2}
    assert len(asyncio.all_tasks()) == 1
