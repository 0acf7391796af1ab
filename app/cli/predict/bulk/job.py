"""A job: a folder of parts that one process at a time writes to, and the loop that hands out its shards."""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import orjson

from app.cli.predict.bulk.plan import Plan
from app.cli.predict.bulk.shard import JOURNALS, Finished
from app.cli.predict.bulk.worker_pool import Signals, WorkerPool
from app.cli.predict.options import PartFormat
from app.cli.predict.pictures import Unreadable
from app.cli.predict.progress import Progress
from app.contract.answer_options import SetMethod
from app.errors import OutputConflict, OutputNotWritable, WorkerEnded
from app.system.atomic_write import atomic_write

_LOOK_EVERY_S = 0.5
_DESCRIPTION = "job.json"


@dataclass(frozen=True)
class Description:
    """The options on which all runs of a job must agree; stored in the folder."""

    output: PartFormat
    top_k: int | None
    features: bool
    shard_size: int
    model: str
    version: int
    min_probability: float | None = None
    false_alarms: float | None = None
    set: float | None = None
    set_method: SetMethod = "lac"

    def check_goes_on(self, begun: Self) -> None:
        """Raise OutputConflict unless a job that was begun with `begun` can be resumed with this."""
        for name, before in asdict(begun).items():
            now = getattr(self, name)
            if now != before:
                raise OutputConflict(
                    f"The job in this folder was begun with {_shown(name, before)}, not with {_shown(name, now)}. Use "
                    "the same value, or name another folder."
                )


def begun_with(folder: Path) -> Description | None:
    """Return the options with which the job in a folder was begun; None if there is no job. Raises OutputConflict."""
    file = folder / JOURNALS / _DESCRIPTION
    try:
        return Description(**orjson.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as exc:
        raise OutputConflict(f"{file} cannot be read ({exc}). Name another folder.") from exc


@contextmanager
def held(folder: Path, *, resume: bool) -> Iterator[None]:
    """Make the folder of a job, and hold it. Raises OutputConflict if it is another's, or OutputNotWritable."""
    try:
        if not resume and _holds_something(folder):
            raise OutputConflict(f"{folder} is not empty. Add --resume to resume its job, or name another folder.")
        (folder / JOURNALS).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / JOURNALS, os.O_RDONLY)
    except OSError as exc:
        raise OutputNotWritable(f"{folder} cannot be written: {exc.strerror}.") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputConflict(f"Another process is working on {folder}. Wait for it, or stop it.") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def begin(folder: Path, description: Description) -> None:
    """Write the options with which the job is begun. Raises OutputNotWritable."""
    try:
        with atomic_write(folder / JOURNALS / _DESCRIPTION, durable=True, mode=0o644) as stream:
            stream.write(orjson.dumps(asdict(description), option=orjson.OPT_INDENT_2))
    except OSError as exc:
        raise OutputNotWritable(f"{folder} cannot be written: {exc.strerror}.") from exc


def run(plan: Plan, pool: WorkerPool, signals: Signals, progress: Progress) -> int:
    """Process all planned shards; return how many pictures have no answer. Raises the first error of a shard."""
    failed = plan.failed

    def unreadable(found: Unreadable) -> None:
        nonlocal failed
        failed += 1
        progress.say(f"error: {found.name}: {found.reason}")

    shown = 0
    shards = plan.shards(unreadable)
    working: set[Future[Finished]] = set()
    while True:
        # One shard more than each worker works on, so that no worker waits for its next shard.
        while len(working) < 2 * pool.size and (shard := next(shards, None)) is not None:
            working.add(pool.submit(shard))
        if not working:
            break
        done, working = wait(working, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        progress.advance(signals.answered.value - shown)
        shown = signals.answered.value
        try:
            failed += sum(each.result().failed for each in done)
        except BrokenProcessPool as exc:
            raise WorkerEnded(
                "A worker process was killed, perhaps because memory ran out. Run the command again with --resume."
            ) from exc
    plan.remove_orphans()
    _make_durable(plan.target.folder)
    _make_durable(plan.target.folder / JOURNALS)
    return failed


def _holds_something(folder: Path) -> bool:
    """Return whether the folder holds anything, except the hidden folder of a job that never began."""
    begun = (folder / JOURNALS / _DESCRIPTION).exists()
    return begun or (folder.exists() and any(each.name != JOURNALS for each in folder.iterdir()))


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(name: str, value: object) -> str:
    option = f"--{name.replace('_', '-')}"
    return option if value is True else f"no {option}" if value in (None, False) else f"{option} {value}"
