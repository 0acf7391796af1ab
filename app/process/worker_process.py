"""A worker process: its fork, the socket between it and its supervisor, and the reason of its end.

It is forked, so it has this process's imports at once, and shares their memory. That is safe as long as this process
has one thread, and never opens what a fork cannot share: an engine, a model, an event loop. The supervisor decides when
to replace a worker.
"""

import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import structlog

from app.metrics import Metrics

STOP, RETIRE = b"S", b"R"
"""Orders to a worker: the service stops, or this worker alone. If the supervisor is gone, the socket is closed."""

HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""The signals that the supervisor handles, and a worker must not."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Place:
    """A worker's number, its row of the shared metrics, and its end of the socket to the supervisor."""

    index: int
    metrics: Metrics
    line: socket.socket

    def tell(self, event: str, **details: str) -> None:
        """Report this worker's state: "listening", before it may have clients; then "ready"; "leaving", if it
        asks to be replaced; "failed", with a reason and its code."""
        with suppress(OSError):  # the supervisor is gone; the closed socket is noticed elsewhere
            self.line.sendall(json.dumps({"event": event, **details}).encode() + b"\n")


class WorkerProcess:
    """One process, as its supervisor sees it."""

    def __init__(self, index: int, metrics: Metrics, pid: int, line: socket.socket) -> None:
        self.index = index
        self.metrics = metrics
        self.pid = pid
        self.line = line
        self.line_ended = False
        self.started_at = time.monotonic()
        self.listening = False
        self.ready_at: float | None = None
        self.failure: dict[str, str] = {}
        self.going = ""  # why it was ordered to stop, or that it asked to be
        self.kill_at = math.inf  # if it has not ended by then
        self.killed_because = ""
        self.replaces: WorkerProcess | None = None  # which stops as soon as this one is ready
        self._unread = bytearray()

    @classmethod
    def fork(
        cls, work: Callable[[Place], int], index: int, metrics: Metrics, *, supervisors_own: Iterable[socket.socket]
    ) -> "WorkerProcess":
        """Start a process that ends with the exit code that `work` returns. Raises OSError.

        The process closes `supervisors_own`: if the sockets to other workers stayed open in it, those workers would not
        notice the supervisor's end.
        """
        ours, theirs = socket.socketpair()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)  # the new process must not run these handlers
        try:
            pid = os.fork()
            if pid == 0:
                _become_worker(work, Place(index, metrics, theirs), [ours, *supervisors_own])
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
            theirs.close()
        ours.setblocking(False)
        return cls(index, metrics, pid, ours)

    def hear(self) -> Iterator[dict[str, str]]:
        """Yield the worker's messages since the last call."""
        while not self.line_ended:
            try:
                data = self.line.recv(4096)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._unread += data
            self.line_ended = not data
        while (end := self._unread.find(b"\n")) >= 0:
            message = json.loads(self._unread[:end])
            del self._unread[: end + 1]
            yield message

    def order(self, order: bytes, reason: str, *, kill_at: float) -> None:
        self.going = self.going or reason
        self.kill_at = kill_at
        with suppress(OSError):  # it has ended, or hangs and will be killed
            self.line.send(order)

    def kill(self, reason: str) -> None:
        self.killed_because = self.killed_because or reason
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def reason_of_end(self, exit_code: int) -> str:
        """Describe why it ended. A negative code is the number of a signal."""
        if self.killed_because:
            return f"killed: {self.killed_because}"
        if exit_code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-exit_code).name}"
            return f"killed by signal {-exit_code}"
        return f"exit code {exit_code}" + (
            f": {self.failure['reason']}" if self.failure else ", see the log lines above"
        )


def _become_worker(work: Callable[[Place], int], place: Place, to_close: Iterable[socket.socket]) -> NoReturn:
    """Run the work in the new process, and exit without returning into the parent's code."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all processes; the supervisor decides
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
        for sock in to_close:
            sock.close()
        code = work(place)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        _log.exception("a worker failed", worker=place.index)
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)  # do not wait for threads that hang
