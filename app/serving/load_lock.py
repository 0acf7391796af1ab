"""One after another: processes that share a folder take turns at heavy work.

The lock is on the folder itself, which needs no write access and leaves nothing behind, whatever ends a process.
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
"""After that the work is done out of turn: another process that hangs must not keep this one from it for ever."""


@contextmanager
def taking_turns(folder: Path, stop: threading.Event, *, longest_wait_s: float = _LONGEST_WAIT_S) -> Iterator[None]:
    """Hold the folder's turn while the block runs, or go without: if it cannot be locked, and after a long wait.

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
            os.close(descriptor)  # and with it the lock


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _locked(descriptor: int) -> bool:
    """Say whether there is nothing more to wait for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        return True
    return True
