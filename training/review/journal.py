"""Append decisions to their file, so that none is lost however the process ends. One process at a time writes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from app.system.folder_lock import lock_if_free
from training.data.decisions import HEADER, Decision, parse_decisions
from training.errors import DataError


class Journal:
    """A file of decisions that is open for appending. `decisions` are those in it."""

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file, self._descriptor = file, descriptor
        data = file.read_bytes()
        decisions, whole = parse_decisions(data, str(file))
        self._made = decisions
        os.ftruncate(descriptor, whole)  # a line that was cut off was never confirmed
        if whole == 0:
            self._write(HEADER)
        elif not data[:whole].endswith(b"\n"):
            self._write(b"\n")

    @property
    def decisions(self) -> Sequence[Decision]:
        return self._made

    def append(self, *decisions: Decision) -> None:
        """Write decisions to the disk, all or none. Raises DataError."""
        try:
            named = self._file.stat()
        except OSError as exc:
            raise DataError(
                f"{self._file} is gone ({exc.strerror}). Nothing was saved; start the review again."
            ) from exc
        if not os.path.samestat(named, os.fstat(self._descriptor)):
            raise DataError(f"{self._file} was replaced by another program. Nothing was saved; start the review again.")
        try:
            self._write(b"".join(each.line() for each in decisions))
        except OSError as exc:
            raise DataError(f"{self._file} cannot be written: {exc.strerror}. Nothing was saved.") from exc
        self._made += decisions

    def _write(self, data: bytes) -> None:
        before = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise


@contextmanager
def open_journal(file: Path) -> Iterator[Journal]:
    """Open a file of decisions, a new one if there is none. Raises DataError, also if another review has it open."""
    try:
        file.parent.mkdir(exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        raise DataError(
            f"{file} cannot be written: {exc.strerror}. Review a copy of the data that can be written to."
        ) from exc
    try:
        with lock_if_free(file) as is_mine:
            if not is_mine:
                raise DataError(f"Another review of this data is running, and writes {file}. End that one first.")
            journal = Journal(file, descriptor)
            _keep_name(file.parent)
            yield journal
    finally:
        os.close(descriptor)


def _keep_name(folder: Path) -> None:
    """Flush the folder, so that the name of a new file is on the disk as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
