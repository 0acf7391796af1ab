"""Keep worker processes running: start them, replace those that end or hang, restart them one after another, stop them.

It knows nothing of HTTP or models: a worker is a function that runs in a process of its own. The supervisor waits for
signals, messages and ends of processes, and polls nothing.
"""

import gc
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, cast

import structlog

from app.metrics import Metrics
from app.process.worker_process import HANDLED_SIGNALS, RETIRE, STOP, Place, WorkerProcess
from app.system.memory import kills_by_memory_limit

_LOADING_S = 600.0
"""How long a worker may take to load its models, during which it sends no heartbeat."""
_SOON_S = 30.0
"""If a worker was ready for less time than this and ended, the start of the next one is delayed."""
_LONGEST_WAIT_S = 30.0
_MARGIN_S = 5.0
"""Kill a worker that takes this much longer to stop than allowed."""
_LATE_S = 1.0
"""If this process itself wakes this much too late, the whole machine stalled, and no worker is at fault."""

_REPEAT_S = 1.0
"""A SIGTERM that follows another within this time is the same one: `timeout` and some supervisors signal the child, and
then the group that it is in."""

_log = structlog.stdlib.get_logger(__name__)


class Supervisor:
    """Keeps `workers` processes running in which `work` serves, until it is stopped.

    `rows` are the shared metrics of twice as many workers: a draining worker and its successor have a row each. `close`
    releases what this process holds for its workers, when no more of them will be started. A worker has `stop_within_s`
    from the order to its end, and is replaced after `hung_after_s` without a heartbeat.
    """

    def __init__(
        self,
        work: Callable[[Place], int],
        *,
        workers: int,
        rows: list[Metrics],
        close: Callable[[], None],
        hung_after_s: float,
        stop_within_s: float,
    ) -> None:
        self._work = work
        self._count: Final = workers
        self._rows = rows
        self._close = close
        self._hung_after_s = hung_after_s
        self._stop_within_s = stop_within_s
        self._workers: list[WorkerProcess] = []
        self._due: dict[int, float] = dict.fromkeys(range(workers), 0.0)  # when to start each worker
        self._ended_at: dict[int, float] = {}  # when the worker ended that has to be replaced
        self._short_lives: dict[int, int] = {}  # how many in a row
        self._to_roll: list[int] | None = None  # the workers that a rolling restart has still to replace
        self._all_were_ready = False
        self._stopping = False
        self._repeats_until = 0.0  # until then, SIGTERM is the one that began the stop
        self._exit_code = 0
        self._kills_by_memory_limit = kills_by_memory_limit()
        self._awake_since = 0.0
        self._signals: list[int] = []
        self._on_terminal = sys.stderr.isatty()
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Run until all workers have ended, and return the exit code."""
        gc.collect()
        gc.freeze()  # so that garbage collection in a worker does not write to shared pages
        with self._receiving_signals():
            while self._workers or self._due:
                self._start_what_is_due()
                self._sleep()
                while self._signals:
                    self._handle(self._signals.pop(0))
                for worker in list(self._workers):
                    self._hear(worker)
                self._reap()
                self._kill_what_hangs()
                self._roll()
        return self._exit_code

    # Waiting and signals

    def _sleep(self) -> None:
        """Wait until an event or the next deadline."""
        now = time.monotonic()
        due = [when for index, when in self._due.items() if self._free_row(index) is not None]
        until = min([*due, *map(self._patience_ends, self._workers)], default=now)
        events = self._selector.select(None if until == math.inf else max(0.0, until - now))
        woke = time.monotonic()
        if woke > max(now, until) + _LATE_S:
            self._awake_since = woke
        for key, _ in events:
            if key.data == "signal":
                with suppress(BlockingIOError):
                    cast("socket.socket", key.fileobj).recv(4096)

    @contextmanager
    def _receiving_signals(self) -> Iterator[None]:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        before = {number: signal.signal(number, self._note_signal) for number in HANDLED_SIGNALS}
        wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._selector.register(ours, selectors.EVENT_READ, "signal")
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            ours.close()
            theirs.close()

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:  # which has served its purpose by waking this process
            self._signals.append(number)

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            if self._on_terminal and not sys.stderr.isatty():
                self._stop("the terminal was closed")
            elif not self._stopping:
                _log.info("restarting the workers, one after another", reason=name)
                self._to_roll = list(range(self._count))
        elif number == signal.SIGTERM and time.monotonic() < self._repeats_until:
            return
        elif self._stopping:
            _log.error("ended by a second signal", reason=name, workers=len(self._workers))
            self._end_by_force(name)
        else:
            if number == signal.SIGTERM:
                self._repeats_until = time.monotonic() + _REPEAT_S
            self._stop(name)

    # Starting

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        for index, when in sorted(self._due.items()):
            if index in self._due and when <= now and self._free_row(index) is not None:
                del self._due[index]
                self._start(index)

    def _start(self, index: int, *, replaces: WorkerProcess | None = None) -> None:
        row = self._free_row(index)
        if row is None:
            raise RuntimeError(f"worker {index} has no row left")
        lines = [worker.line for worker in self._workers]
        try:
            worker = WorkerProcess.fork(self._work, index, row, supervisors_own=lines)
        except OSError as exc:
            reason = f"No process can be started for worker {index}: {exc.strerror}."
            if not self._all_were_ready:
                self._cannot_start(reason, "worker_failed")
                return
            _log.error("worker not started", worker=index, reason=reason)
            self._to_roll = None
            if replaces is None:
                self._start_another(index)
            return
        worker.replaces = replaces
        self._workers.append(worker)
        self._selector.register(worker.line, selectors.EVENT_READ)
        _log.debug("worker started", worker=index, process=worker.pid)

    def _free_row(self, index: int) -> Metrics | None:
        taken = [worker.metrics for worker in self._workers]
        return next((row for row in self._rows[index :: self._count] if row not in taken), None)

    def _start_another(self, index: int, after: WorkerProcess | None = None) -> None:
        """Schedule the start of a worker of this number: at once, or later if its predecessors did not last."""
        now = time.monotonic()
        lasted = after is not None and after.ready_at is not None and now - after.ready_at >= _SOON_S
        short_lives = 0 if lasted else self._short_lives.get(index, 0)
        self._short_lives[index] = short_lives + 1
        delay = min(_LONGEST_WAIT_S, 2.0 ** (short_lives - 1)) if short_lives else 0.0
        if delay:
            _log.warning("worker waits", worker=index, seconds=delay, reason="its predecessors ended too soon")
        self._due[index] = now + delay

    # Messages and heartbeats

    def _hear(self, worker: WorkerProcess) -> None:
        ended_before = worker.line_ended
        for message in worker.hear():
            match message["event"]:
                case "listening":
                    worker.listening = True
                case "ready":
                    self._welcome(worker)
                case "failed":
                    worker.failure = message
                case "leaving" if not (worker.going or self._stopping):
                    kill_at = time.monotonic() + self._stop_within_s + _MARGIN_S
                    worker.order(RETIRE, "it asked to be replaced", kill_at=kill_at)
                    _log.warning("worker leaves", worker=worker.index, process=worker.pid, reason=worker.going)
                    self._start_another(worker.index, worker)
        if worker.line_ended and not ended_before:
            self._selector.unregister(worker.line)

    def _welcome(self, worker: WorkerProcess) -> None:
        worker.ready_at = time.monotonic()
        ended_at = self._ended_at.pop(worker.index, None)
        if ended_at is not None:
            seconds = round(worker.ready_at - ended_at, 3)
            _log.info("worker replaced", worker=worker.index, process=worker.pid, seconds=seconds)
        if worker.replaces is not None:
            kill_at = worker.ready_at + self._stop_within_s + _MARGIN_S
            worker.replaces.order(RETIRE, "its successor is ready", kill_at=kill_at)
            worker.replaces = None
        ready = {other.index for other in self._workers if other.ready_at is not None}
        self._all_were_ready = self._all_were_ready or len(ready) == self._count

    def _patience_ends(self, worker: WorkerProcess) -> float:
        """Return when to kill a worker if it shows no progress before."""
        return math.inf if worker.killed_because else min(worker.kill_at, self._hung_at(worker))

    def _hung_at(self, worker: WorkerProcess) -> float:
        if worker.ready_at is None:
            return max(worker.started_at, self._awake_since) + max(_LOADING_S, self._hung_after_s)
        return max(worker.metrics.last_sign_of_life, worker.ready_at, self._awake_since) + self._hung_after_s

    def _kill_what_hangs(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if self._patience_ends(worker) <= now:
                silent_s = now - max(worker.metrics.last_sign_of_life, worker.started_at)
                hangs = self._hung_at(worker) <= now
                worker.kill(f"no heartbeat for {silent_s:.1f} s" if hangs else "it did not stop in time")

    # Ends

    def _reap(self) -> None:
        """Reap every process that has ended. As process 1 of a container, this one also inherits others."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for worker in [worker for worker in self._workers if worker.pid == ended[0]]:
                    self._hear(worker)
                    if not worker.line_ended:
                        self._selector.unregister(worker.line)
                    worker.line.close()
                    worker.metrics.vacate()
                    self._workers.remove(worker)
                    self._lose(worker, os.waitstatus_to_exitcode(ended[1]))

    def _lose(self, worker: WorkerProcess, exit_code: int) -> None:
        reason = worker.reason_of_end(exit_code)
        if exit_code == -signal.SIGKILL and self._memory_limit_was_reached():
            reason += ", because the memory limit is reached: raise it, or lower IMAGECLASS_WORKERS"
        exited_as_ordered = bool(worker.going) and exit_code == 0
        if self._stopping:
            if worker.listening and not exited_as_ordered and not self._exit_code:
                _log.error("worker died", worker=worker.index, process=worker.pid, reason=reason)
                self._exit_code = 1
            return
        others_serve = any(other.listening for other in self._workers)
        if worker.ready_at is None and not (self._all_were_ready and (others_serve or not worker.failure)):
            failure = {"reason": f"Worker {worker.index} did not start: {reason}.", "code": "worker_failed"}
            failure |= worker.failure
            self._cannot_start(failure["reason"], failure["code"])
            return
        if not exited_as_ordered:
            _log.error("worker died", worker=worker.index, process=worker.pid, reason=reason)
        if worker.replaces is not None:
            _log.error("restart given up", worker=worker.index, reason="the other workers continue")
            self._to_roll = None
        elif worker.index not in self._due and not self._has_another(worker.index):
            self._ended_at[worker.index] = time.monotonic()
            self._start_another(worker.index, worker)

    def _memory_limit_was_reached(self) -> bool:
        before, self._kills_by_memory_limit = self._kills_by_memory_limit, kills_by_memory_limit()
        return self._kills_by_memory_limit > before

    def _has_another(self, index: int) -> bool:
        return any(worker.index == index and not worker.going for worker in self._workers)

    # Stopping

    def _stop(self, reason: str) -> None:
        _log.info("stopping", reason=reason)
        self._end_starting()
        kill_at = time.monotonic() + self._stop_within_s + _MARGIN_S
        for worker in self._workers:
            self._hear(worker)
            if worker.listening:
                worker.order(STOP, "the service stops", kill_at=kill_at)
            else:  # it has not reported that it may have clients
                worker.kill("the service stops")

    def _cannot_start(self, reason: str, code: str) -> None:
        if not self._stopping:
            _log.error("cannot start", reason=reason, code=code)
        self._end_by_force("the service cannot start")

    def _end_by_force(self, reason: str) -> None:
        self._end_starting()
        self._exit_code = 1
        for worker in self._workers:
            worker.kill(reason)

    def _end_starting(self) -> None:
        self._stopping = True
        self._due.clear()
        self._to_roll = None
        self._close()

    # Rolling restart

    def _roll(self) -> None:
        """Start the next successor if every worker is ready and none is stopping."""
        if self._to_roll is None or self._due or len(self._workers) != self._count:
            return
        if any(worker.ready_at is None or worker.going for worker in self._workers):
            return
        if self._to_roll:
            index = self._to_roll.pop(0)
            self._start(index, replaces=next(worker for worker in self._workers if worker.index == index))
        else:
            self._to_roll = None
            _log.info("restarted", workers=self._count)
