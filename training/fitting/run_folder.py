"""The folders of unfinished runs of a model: `<store>/<name>/.runs/<number>/`, which no reader of the store looks into.

A run that is published, or that failed, removes its folder. A killed run leaves it for `--resume`.
"""

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from app.contract.bundle import read_manifest
from app.contract.store import ModelStore
from app.errors import BundleError
from app.system.atomic_write import remove_unfinished
from training.errors import CheckpointError, DivergedError, NotGoodEnough, OptionError
from training.fitting.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

_CHECKPOINT = "checkpoint.npz"
_IDENTITY = "run.json"
_LOCK = "lock"
_NUMBER = re.compile(r"[1-9][0-9]*")

Identity = Mapping[str, str]
"""A run can only resume one with the same identity: the command, and the data's digest."""
RUN_ID = "run"
"""The key of the run's id in a manifest's training record."""


class RunFolder:
    """The folder of one run. While it is open, no other process can resume the run.

    Without a lock it belongs to the chief of several workers, and is only read.
    """

    def __init__(self, folder: Path, lock: int | None, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._lock = lock
        self._say = say
        self.again = ""  # the command that resumes the run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the folder if the run can be resumed later, else remove it."""
        if self._lock is None:
            return
        came_to_nothing = isinstance(exc, NotGoodEnough | DivergedError)
        if exc is not None and not came_to_nothing and (self.folder / _CHECKPOINT).exists():
            self._say(f"{self.folder} is kept. To resume after its last epoch: {self.again}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            for folder in (self.folder.parent, self.folder.parent.parent):
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
        os.close(self._lock)

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Release the run without changing it, if the block fails."""
        try:
            yield
        except BaseException:
            if self._lock is not None:
                os.close(self._lock)
            raise

    @property
    def id(self) -> str | None:
        """The run's unique id; None if it cannot be read."""
        return _identity(self.folder).get("id")

    def checkpoint(self) -> Checkpoint | None:
        """Return the run's checkpoint; None before its first epoch is done. Raises CheckpointError."""
        return read_checkpoint(self.folder / _CHECKPOINT)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint. Raises CheckpointError; the previous checkpoint then stays."""
        if self._lock is None:
            return
        write_checkpoint(self.folder / _CHECKPOINT, checkpoint)

    def check_same(self, identity: Identity) -> None:
        """Raise OptionError, which names the differences, if the run was started with another identity."""
        if self._lock is None:
            return  # the chief checks that
        started = _identity(self.folder)
        if not started:
            raise CheckpointError(f"{self.folder / _IDENTITY} cannot be read. Start without --resume.")
        differences = _differences(started.get("command", ""), identity["command"])
        if not differences and started.get("data") != identity["data"]:
            differences = ["other pictures or labels in the data"]
        if differences:
            raise OptionError(
                f"The unfinished run {self.folder} was started with other options: {'; '.join(differences)}. Use the "
                "same options, or start again without --resume."
            )


def new_run_folder(
    store: ModelStore, name: str, identity: Identity, *, is_chief: bool, say: Callable[[str], None]
) -> RunFolder:
    """Make the folder of a new run, if this is the chief. Raises CheckpointError."""
    home = _runs(store, name)
    if not is_chief:
        return RunFolder(home / "of the chief", None, say)
    _remove_empty(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        number = max([0, *(int(folder.name) for folder in _folders(home))])
        while True:
            number += 1
            with contextlib.suppress(FileExistsError):
                (home / str(number)).mkdir()
                break
        folder = home / str(number)
        lock = _lock(folder)
        if lock is None:
            raise CheckpointError(f"Another process has taken {folder}. Run the command again.")
        started = {**identity, "id": uuid.uuid4().hex}
        (folder / _IDENTITY).write_text(json.dumps(started, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise CheckpointError(f"{home} cannot be written: {exc.strerror or exc}.") from exc
    return RunFolder(folder, lock, say)


def unfinished_run_folder(
    store: ModelStore, name: str, *, is_chief: bool, say: Callable[[str], None]
) -> RunFolder | None:
    """Return the folder of the newest run with a checkpoint that no process is running; None if there is none.

    A worker that is not the chief takes no lock: the chief has it. Raises CheckpointError.
    """
    for folder in unfinished_folders(store, name):
        if not is_chief:
            return RunFolder(folder, None, say)
        try:
            lock = _lock(folder)
        except OSError as exc:
            raise CheckpointError(f"{folder} cannot be written: {exc.strerror}. Start without --resume.") from exc
        if lock is not None:
            remove_unfinished(folder / _CHECKPOINT)
            return RunFolder(folder, lock, say)
    return None


def published_version(store: ModelStore, name: str, command: str, *, say: Callable[[str], None]) -> int | None:
    """Return the version that a run of this command had published when it was killed, and remove its folder.

    None if there is no such run.
    """
    versions = _versions_by_run(store, name)
    for folder in unfinished_folders(store, name):
        started = _identity(folder)
        if started.get("id") in versions and started["command"] == command:
            with contextlib.suppress(OSError):
                lock = _lock(folder)
                if lock is not None:
                    with RunFolder(folder, lock, say):
                        return versions[started["id"]]
    return None


def unfinished_folders(store: ModelStore, name: str) -> list[Path]:
    """Return the folders with a checkpoint, of killed and of running runs, newest first."""
    folders = [folder for folder in _folders(_runs(store, name)) if (folder / _CHECKPOINT).exists()]
    return sorted(folders, key=lambda folder: int(folder.name), reverse=True)


def _identity(folder: Path) -> dict[str, str]:
    """Return the run's identity and id; an empty result if they cannot be read."""
    try:
        return dict(json.loads((folder / _IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _versions_by_run(store: ModelStore, name: str) -> dict[str, int]:
    found = {}
    for version in store.versions(name):
        with contextlib.suppress(BundleError):
            run = read_manifest(store.path(name, version)).training.get(RUN_ID)
            if isinstance(run, str):
                found[run] = version
    return found


def _runs(store: ModelStore, name: str) -> Path:
    return store.root / name / ".runs"


def _folders(home: Path) -> list[Path]:
    try:
        return [folder for folder in home.iterdir() if _NUMBER.fullmatch(folder.name)]
    except OSError:
        return []


def _remove_empty(home: Path) -> None:
    """Remove the folders of runs that were killed before their first epoch was done."""
    for folder in _folders(home):
        # Without the identity file, its process may be about to take the lock.
        if not (folder / _CHECKPOINT).exists() and (folder / _IDENTITY).exists():
            with contextlib.suppress(OSError):
                lock = _lock(folder)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return a lock that is released when this process ends, however it ends; None if another process has it."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _differences(started: str, now: str) -> list[str]:
    before, after = _options(started), _options(now)
    return [
        f"{option} was {before.get(option, 'not given')} and is {after.get(option, 'not given')}"
        for option in sorted(before.keys() | after.keys())
        if before.get(option) != after.get(option)
    ]


def _options(command: str) -> dict[str, str]:
    words = shlex.split(command)
    return {
        word: words[index + 1] if index + 1 < len(words) and not words[index + 1].startswith("--") else "given"
        for index, word in enumerate(words)
        if word.startswith("--")
    }
