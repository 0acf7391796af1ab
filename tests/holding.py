"""Hold what runs in a thread until a test lets it go."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager


class Held:
    """A function whose call has `begun` and goes on once it `may_end`."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.may_end.wait(60)


@contextmanager
def busy(pool: Executor) -> Iterator[threading.Event]:
    """Keep a thread of the pool busy until the event is set, at the latest when the block ends."""
    gate = threading.Event()
    pool.submit(gate.wait, 60)
    try:
        yield gate
    finally:
        gate.set()
