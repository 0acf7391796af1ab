"""Let processes that share a folder take turns, by a lock.

The lock is on the folder itself: locking needs no write access, and leaves nothing behind, however a process ends.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ASK_EVERY_S = 0.02
_LONGEST_WAIT_S = 30.0
"""Wait at most this long, then work without the lock: a process that hangs must not block others for ever."""


@contextmanager
def taking_turns(folder: Path, stop: threading.Event, *, longest_wait_s: float = _LONGEST_WAIT_S) -> Iterator[None]:
    """Hold the folder's lock while the block runs. Run without it if it cannot be locked, or after a long wait.

    `stop` ends the wait at once.
    """
    descriptor = _open(folder)
    try:
        if descriptor is not None:
            give_up = time.monotonic() + longest_wait_s
            while not _locked(descriptor) and time.monotonic() < give_up and not stop.wait(_ASK_EVERY_S):
                pass
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # releases the lock


@contextmanager
def lock_if_free(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock while the block runs, and yield True; yield False if another process holds it."""
    descriptor = _open(folder)
    try:
        yield descriptor is None or _locked(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _locked(descriptor: int) -> bool:
    """Try to lock. Return True if there is no need to wait longer."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True
