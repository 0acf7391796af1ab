"""When a worker asks the bucket."""

import asyncio
import itertools
from typing import cast

import pytest

from app.object_storage.follower import Follower
from app.object_storage.mirror import Mirror


class Asked:
    """Stands for a mirror: whether the bucket answers, and how often it was asked."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.times = 0
        self.enough = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._answers = itertools.chain(answers, itertools.repeat(True))

    def follow(self, *, every_s: float) -> bool:
        self.times += 1
        if self.times == 4:
            self._loop.call_soon_threadsafe(self.enough.set)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def follower(asked: Asked, interval_s: float) -> Follower:
    return Follower(cast("Mirror", asked), interval_s=interval_s)


async def test_it_asks_again_and_again_whatever_goes_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked(True, RuntimeError("once"), False)
    async with follower(asked, 0.001):
        await asyncio.wait_for(asked.enough.wait(), 60)
    times = asked.times
    assert times >= 4
    assert capsys.readouterr().out.count("following the object store failed") == 1


async def test_an_interval_of_zero_asks_never() -> None:
    asked = Asked()
    async with follower(asked, 0):
        await asyncio.sleep(0.01)
    assert asked.times == 0


async def test_waits_are_spread_and_grow_while_the_bucket_does_not_answer() -> None:
    waits = {failed: [follower(Asked(), 0.5)._wait_s(failed) for _ in range(100)] for failed in (0, 1, 10)}
    assert 0.4 <= min(waits[0]) < max(waits[0]) <= 0.6
    assert 0.8 <= min(waits[1]) < max(waits[1]) <= 1.2
    assert 4 <= min(waits[10]) < max(waits[10]) <= 6
    assert follower(Asked(), 60)._wait_s(10) >= 48
