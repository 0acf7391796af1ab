"""A coverage-guided fuzzer: damages what it has, and keeps whatever takes the code another way.

It needs nothing but Python, and runs on every version that the project runs on. The ways are pairs of lines of the
service's own code, one after the other, and the outcome; native code shows in them only by its answers.
"""

import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.targets import Target
from tests.mutation import damaged

_WATCHED = ("/app/contract/", "/app/api/")
_LARGEST = 64 * 1024
_SLOW_S = 2.0


@cache  # asked at every call of a function
def _is_watched(file: str) -> bool:
    return any(part in file for part in _WATCHED)


class Defect(Exception):
    """An input that the target fails on, or that it takes too long over."""

    def __init__(self, data: bytes, reason: str) -> None:
        super().__init__(reason)
        self.data = data


class Fuzzer:
    """Owns a corpus: in memory, and in `folder` where there is one, from which it goes on the next time."""

    def __init__(self, target: Target, seeds: Iterable[bytes], *, seed: int, folder: Path | None = None) -> None:
        self._target = target
        self._rng = random.Random(seed)  # noqa: S311 - a run is to be repeatable
        self._folder = folder
        self._seen: set[object] = set()
        self.corpus: list[bytes] = []
        self.runs = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            seeds = [*seeds, *(file.read_bytes() for file in sorted(folder.iterdir()))]
        for data in seeds:
            self._try(data)
        if not self.corpus:
            raise ValueError("a fuzzer needs seeds")

    def run(self, *, inputs: int, until: Callable[[], bool] = lambda: False) -> None:
        """Try so many damaged inputs, or fewer where `until` says so. Raises Defect."""
        for _ in range(inputs):
            if until():
                return
            # Half the time one of the newest: what is new has been damaged the least.
            newest = self.corpus[-20:] if self._rng.random() < 0.5 else self.corpus
            data = damaged(self._rng.choice(newest), self._rng.choice(self.corpus), self._rng)
            self._try(data[:_LARGEST])

    def _try(self, data: bytes) -> None:
        self.runs += 1
        began = time.process_time()
        ways, outcome = self._trace(data)
        if time.process_time() - began > _SLOW_S:
            raise Defect(data, f"took {time.process_time() - began:.1f} s: {outcome}")
        ways.add(outcome)
        if ways <= self._seen:
            return
        self._seen |= ways
        self.corpus.append(data)
        if self._folder is not None:
            # The name is the content's: the same input is kept once, whoever finds it.
            (self._folder / hashlib.sha256(data).hexdigest()[:32]).write_bytes(data)

    def _trace(self, data: bytes) -> tuple[set[object], str]:
        ways: set[object] = set()

        def watch(frame: FrameType, _event: str, _argument: Any) -> Any:
            name = frame.f_code.co_filename
            if not _is_watched(name):
                return None
            last = 0

            def line(frame: FrameType, event: str, _argument: Any) -> Any:
                nonlocal last
                if event == "line":
                    ways.add((name, last, frame.f_lineno))
                    last = frame.f_lineno
                return line

            return line

        before = sys.gettrace()
        sys.settrace(watch)
        try:
            outcome = self._target(data)
        except Exception as exc:
            raise Defect(data, f"{type(exc).__name__}: {exc}") from exc
        finally:
            sys.settrace(before)
        return ways, outcome
