"""Replace a file atomically: a reader finds the old content or the new, never a part of either."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(file: Path, *, durable: bool = False, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a hidden file beside `file` to write to, and rename it to `file` when the block ends.

    If the block or the writing fails, `file` stays as it was and nothing is left beside it. With `durable`, the content
    is on the disk before the rename, so it also survives a power failure. `mode` is the permissions of the new file.
    Raises OSError.
    """
    descriptor, unfinished = tempfile.mkstemp(prefix=_prefix(file), dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            os.fchmod(descriptor, mode)
            if durable:
                stream.flush()
                os.fsync(descriptor)
        Path(unfinished).replace(file)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def remove_unfinished(file: Path) -> None:
    """Remove unfinished files that killed writers of `file` left beside it. No other process may be writing it."""
    for left_behind in file.parent.glob(f"{_prefix(file)}*"):
        left_behind.unlink(missing_ok=True)


def make_durable(folder: Path) -> None:
    """Have all files of a folder on the disk before a rename makes them visible. Raises OSError."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _prefix(file: Path) -> str:
    return f".{file.name}-"
