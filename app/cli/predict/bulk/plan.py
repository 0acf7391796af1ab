"""Plan a job: find the pictures that are in a valid part already, and divide the others into shards.

A shard that was begun keeps its pictures, so a resumed job gives the same parts as an uninterrupted one. New pictures
make new shards. If a picture has changed or is gone, its shard is processed again.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from app.cli.predict.bulk.answers import digest_of
from app.cli.predict.bulk.journal import Recorded, recorded_in
from app.cli.predict.bulk.shard import Shard, Target
from app.cli.predict.pictures import Found, Unreadable, path_of, read, stamp_of
from app.client import Failure

Sources = Callable[[], Iterator[Found | Unreadable]]
"""Lists the pictures, in the same order each time."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A picture that a journal names; stamp and digest are None if it has no answer."""

    shard: int
    stamp: str | None
    sha256: str | None


@dataclass
class Plan:
    """The work to do. `total` counts pictures, `done` those in valid parts, `failed` those of them without an
    answer."""

    target: Target
    sources: Sources
    shard_size: int
    total: int = 0
    done: int = 0
    failed: int = 0
    valid: set[int] = field(default_factory=set)
    _known: dict[bytes, _Known] = field(default_factory=dict)
    _present: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, target: Target, sources: Sources, shard_size: int) -> "Plan":
        """Read the journals, and compare them with the pictures that are there. Raises OSError."""
        plan = cls(target, sources, shard_size)
        complete: dict[int, tuple[int, int]] = {}
        for file in sorted(target.journals.glob("*.jsonl")):
            number, recorded = int(file.stem), recorded_in(file, values=False)
            plan._learn(number, recorded)
            if recorded.part is not None and _is_there(target.folder, *recorded.part):
                failed = sum(isinstance(recorded.answers[each].outcome, Failure) for each in recorded.pictures)
                complete[number] = len(recorded.pictures), failed
        intact: Counter[int] = Counter()
        for found in _once(sources()):
            if isinstance(found, Unreadable):
                continue
            plan.total += 1
            known = plan._known.get(_key(found))
            if known is not None:
                plan._present[known.shard] += 1
                intact[known.shard] += _is_intact(found, known, target.max_bytes)
        for number, (pictures, failed) in complete.items():
            if intact[number] == plan._present[number] == pictures:
                plan.valid.add(number)
                plan.done += pictures
                plan.failed += failed
        return plan

    def shards(self, unreadable: Callable[[Unreadable], None]) -> Iterator[Shard]:
        """Yield the shards to process; `unreadable` is called for names that lead to no picture."""
        begun: dict[int, list[Found]] = {}
        fresh: list[Found] = []
        used = {known.shard for known in self._known.values()}
        free = (number for number in range(1 << 62) if number not in used)
        for found in _once(self.sources()):
            if isinstance(found, Unreadable):
                unreadable(found)
                continue
            known = self._known.get(_key(found))
            if known is None:
                fresh.append(found)
                if len(fresh) == self.shard_size:
                    yield Shard(next(free), tuple(fresh))
                    fresh = []
            elif known.shard not in self.valid:
                pictures = begun.setdefault(known.shard, [])
                pictures.append(found)
                if len(pictures) == self._present[known.shard]:
                    yield Shard(known.shard, tuple(begun.pop(known.shard)))
        for number, pictures in begun.items():
            yield Shard(number, tuple(pictures))
        if fresh:
            yield Shard(next(free), tuple(fresh))

    def remove_orphans(self) -> None:
        """Remove the parts whose pictures are all gone. Raises OSError."""
        for number in {known.shard for known in self._known.values()} - set(self._present):
            self.target.part(number).unlink(missing_ok=True)
            self.target.journal(number).unlink()

    def _learn(self, number: int, recorded: Recorded) -> None:
        for path in recorded.pictures:
            answer = recorded.answers.get(path)
            self._known[_hash(path)] = (
                _Known(number, None, None) if answer is None else _Known(number, answer.stamp, answer.sha256)
            )


def _is_intact(found: Found, known: _Known, max_bytes: int) -> bool:
    if known.stamp is None:
        return False
    if known.stamp == stamp_of(found):
        return True
    return known.sha256 != "" and known.sha256 == digest_of(read(found, max_bytes=max_bytes))


def _is_there(folder: Path, name: str, size: int) -> bool:
    try:
        return (folder / name).stat().st_size == size
    except OSError:
        return False


def _once(pictures: Iterator[Found | Unreadable]) -> Iterator[Found | Unreadable]:
    """Leave out repeated names."""
    seen: set[bytes] = set()
    for each in pictures:
        key = _hash(each.name) if isinstance(each, Unreadable) else _key(each)
        if key not in seen:
            seen.add(key)
            yield each


def _key(found: Found) -> bytes:
    return _hash(path_of(found))


def _hash(path: str) -> bytes:
    """Return a hash of a path: a million paths would take several times as much memory."""
    return blake2b(os.fsencode(path), digest_size=16).digest()
