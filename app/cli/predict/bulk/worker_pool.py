"""The workers of a bulk job: a process per core with its own model, or threads that call a service."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from app.cli.predict.bulk.answers import Classify
from app.cli.predict.bulk.here import ModelHere
from app.cli.predict.bulk.shard import Finished, Shard, Target, work_on


class Stopped(Exception):
    """The job ends, so this shard ends; its journal keeps the answers."""


@dataclass(frozen=True)
class Signals:
    """What the job and its workers share: how many pictures are answered, and whether to stop."""

    answered: "Synchronized[int]"
    stopping: Event

    @classmethod
    def new(cls) -> "Signals":
        context = multiprocessing.get_context("spawn")
        return cls(context.Value("q", 0), context.Event())

    def advance(self, pictures: int) -> None:
        with self.answered.get_lock():
            self.answered.value += pictures
        if self.stopping.is_set():
            raise Stopped


@dataclass(frozen=True)
class WorkerPool:
    """Works on shards, `size` at once."""

    size: int
    executor: Executor
    work: Callable[[Shard], Finished]

    def submit(self, shard: Shard) -> Future[Finished]:
        with _ctrl_c_waits():
            return self.executor.submit(self.work, shard)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Deliver SIGINT to this thread only after the block, and never to a process or thread that starts in it.

    A terminal sends Ctrl-C to all processes of the job. The job itself stops its workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def processes(model: ModelHere, target: Target, signals: Signals, size: int) -> Iterator[WorkerPool]:
    """Open a pool of processes. They are not forked: the libraries that run networks have threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(size, context, initializer=_begin, initargs=(model, target, signals)) as executor:
        yield from _until_stopped(WorkerPool(size, executor, _work_here), signals)


@contextmanager
def threads(classify: Classify, target: Target, signals: Signals, size: int) -> Iterator[WorkerPool]:
    """Open a pool of threads."""

    def work(shard: Shard) -> Finished:
        return work_on(shard, target, classify, signals.advance)

    with ThreadPoolExecutor(size, thread_name_prefix="shard") as executor:
        yield from _until_stopped(WorkerPool(size, executor, work), signals)


def _until_stopped(pool: WorkerPool, signals: Signals) -> Iterator[WorkerPool]:
    """Yield the pool once; then let it finish its current shards, and begin no more."""
    try:
        yield pool
    finally:
        signals.stopping.set()
        # It must wait: after wait=False, the pool closes its pipe while the exit of the interpreter writes into it.
        pool.executor.shutdown(cancel_futures=True)


class _Worker:
    """The state of a worker process: the model, opened with the first shard, so that its errors reach the job."""

    model: ModelHere
    target: Target
    signals: Signals
    classify: Classify | None = None


def _begin(model: ModelHere, target: Target, signals: Signals) -> None:
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    _Worker.model, _Worker.target, _Worker.signals = model, target, signals


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work_here(shard: Shard) -> Finished:
    if _Worker.classify is None:
        _Worker.classify = _Worker.model.open()
    return work_on(shard, _Worker.target, _Worker.classify, _Worker.signals.advance)
