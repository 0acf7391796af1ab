"""Work on one shard: read ahead, answer in batches, record each batch in the journal, and write the part at the end.

A picture whose answer is in the journal is not answered again if it has the same stamp or the same digest.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from app.cli.predict.bulk.answers import Answer, Classify, answers_to, digest_of
from app.cli.predict.bulk.journal import JournalWriter, recorded_in
from app.cli.predict.bulk.parts import Layout
from app.cli.predict.pictures import Found, Picture, Unreadable, name_of, path_of, read, stamp_of
from app.client import Failure
from app.errors import OutputNotWritable
from app.system.atomic_write import atomic_write, remove_unfinished

BATCH = 32
"""Pictures per recorded batch: the most that a killed job loses in each process."""
_BATCH_BYTES = 32 << 20

JOURNALS = ".journal"
"""The journals' folder within the parts' folder: hidden, so that readers of the parts do not see it."""

Place = tuple[int, Picture | Unreadable]


@dataclass(frozen=True)
class Target:
    """The folder of the parts, the layout of their rows, and the size of the largest picture that is read."""

    folder: Path
    layout: Layout
    max_bytes: int

    @property
    def journals(self) -> Path:
        return self.folder / JOURNALS

    def journal(self, number: int) -> Path:
        return self.journals / f"{number:05}.jsonl"

    def part(self, number: int) -> Path:
        return self.folder / self.layout.part_name(number)


@dataclass(frozen=True)
class Shard:
    """Pictures whose answers make one part, in this order."""

    number: int
    pictures: tuple[Found, ...]


@dataclass(frozen=True)
class Finished:
    """A shard whose part is written: how many of its pictures have no answer."""

    number: int
    pictures: int
    failed: int


def work_on(shard: Shard, target: Target, classify: Classify, advance: Callable[[int], None]) -> Finished:
    """Write the part of a shard. `advance` is called after every batch; an exception from it ends the work.

    Raises OutputNotWritable, or what `classify` raises.
    """
    try:
        with target.journal(shard.number).open("ab") as stream:
            with suppress(OSError):  # a file system without locks
                # Wait for a process of a killed job: it may not have ended yet.
                fcntl.flock(stream, fcntl.LOCK_EX)
            answers = _answered(shard, target, classify, advance, JournalWriter(stream), stream.truncate)
            part = target.part(shard.number)
            remove_unfinished(part)
            with atomic_write(part, durable=True, mode=0o644) as written:
                target.layout.write(answers, written)
            JournalWriter(stream).complete(part.name, part.stat().st_size)
    except OSError as exc:
        raise OutputNotWritable(
            f"{target.folder} cannot be written: {exc.strerror or exc}. Fix that, and run the command again with "
            "--resume."
        ) from exc
    return Finished(shard.number, len(answers), sum(isinstance(each.outcome, Failure) for each in answers))


def _answered(
    shard: Shard,
    target: Target,
    classify: Classify,
    advance: Callable[[int], None],
    journal: JournalWriter,
    truncate: Callable[[int], int],
) -> list[Answer]:
    paths = [path_of(each) for each in shard.pictures]
    recorded = recorded_in(target.journal(shard.number))
    truncate(recorded.whole_bytes)
    if recorded.pictures != paths:
        journal.begin(paths)
    fresh: dict[int, Answer] = {}
    reported = 0
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        batches = _batches(shard.pictures, recorded.answers, target.max_bytes)
        reading = reader.submit(next, batches, None)
        while (batch := reading.result()) is not None:
            reading = reader.submit(next, batches, None)
            places = [place for place, _ in batch]
            answers = answers_to([picture for _, picture in batch], classify)
            journal.add(places, answers)
            fresh |= zip(places, answers, strict=True)
            advance(places[-1] + 1 - reported)
            reported = places[-1] + 1
    advance(len(paths) - reported)
    return [
        fresh.get(place) or replace(recorded.answers[path], file=name_of(shard.pictures[place]))
        for place, path in enumerate(paths)
    ]


def _batches(pictures: Sequence[Found], known: Mapping[str, Answer], max_bytes: int) -> Iterator[list[Place]]:
    """Yield the pictures that have no valid answer yet, read, with their places."""
    batch: list[Place] = []
    held = 0
    for place, found in enumerate(pictures):
        before = known.get(path_of(found))
        if before is not None and before.sha256 and before.stamp == stamp_of(found):
            continue
        picture = read(found, max_bytes=max_bytes)
        if before is not None and before.sha256 == digest_of(picture) != "":
            continue
        batch.append((place, picture))
        held += len(picture.data) if isinstance(picture, Picture) else 0
        if len(batch) == BATCH or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
