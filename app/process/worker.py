"""Run a worker process: uvicorn around the application, under the supervisor's orders.

It serves until it is ordered to stop or to make room for its successor, gets SIGTERM, or loses its supervisor. Then it
drains: no accepted request is cut off.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog
from fastapi import FastAPI

from app.api.lifecycle import Lifecycle
from app.engines.openvino import import_openvino
from app.errors import ImageclassError
from app.main import self_check, worker_app
from app.process.http_server.server import STARTUP_FAILURE, DrainingServer
from app.process.listener import Listener, SharingLoop
from app.process.worker_process import RETIRE, STOP, Place
from app.settings import Settings
from app.waiting import wait_all

if TYPE_CHECKING:
    from app.api.protocols.open_inference.rpc_server import RpcServer

_SIGN_OF_LIFE_S = 1.0
_SWITCH_S = 0.0005
"""How long a thread that loads a version, or decodes, may keep the interpreter's lock from the event loop. Python's
default of 5 ms shows in the slowest answers."""
_LINGER_S = 0.5
"""How long an idle connection stays open while its worker drains: a request may be in transit."""
_LAST_ANSWERS_S = 0.5
"""How long clients have to read the rejection of a request that was not answered within the grace period."""
_END_MARGIN_S = 2.0
_STATM = Path("/proc/self/statm")

_log = structlog.stdlib.get_logger(__name__)


def preload() -> None:
    """Import the other modules that every worker needs, in the process that they are forked from."""
    # The tuning draws a picture, and FastAPI looks at each route's types.
    import numpy.random  # noqa: F401
    import pydantic.v1  # noqa: F401

    with suppress(ImportError):  # the worker reports what is wrong
        import_openvino()


def work(place: Place, settings: Settings, listener: socket.socket) -> int:
    """Load the models, serve until the end, and return the exit code."""
    sys.setswitchinterval(_SWITCH_S)
    began = time.monotonic()
    leaving: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: leaving.append(number))  # until the event loop handles it
    place.metrics.begin()
    lifecycle = Lifecycle()
    try:
        app = worker_app(settings, place.metrics, lifecycle)
    except ImageclassError as exc:
        place.tell("failed", reason=str(exc), code=exc.code)
        return STARTUP_FAILURE
    server = WorkerServer(settings, app, place, lifecycle)
    server.run_until_drained(listener, began=began, leave_at_once=bool(leaving))
    return 0


class WorkerServer(DrainingServer):
    """Serves in a worker process, follows the supervisor's orders, and drains before it ends."""

    def __init__(self, settings: Settings, app: FastAPI, place: Place, lifecycle: Lifecycle) -> None:
        super().__init__(settings, app)
        self._settings = settings
        self._place = place
        self._lifecycle = lifecycle
        self.connections.watch(place.metrics.connections.set)
        self._self_check = self_check(settings, app.state.inference.admission, place.metrics)
        self._living: asyncio.Task[None] | None = None
        self._saying: asyncio.Task[None] | None = None
        self._began = 0.0
        self._leave_at_once = False

    def run_until_drained(self, listener: socket.socket, *, began: float, leave_at_once: bool) -> None:
        """Serve on the listener. `began` is when this worker started; it may have been ordered to stop since."""
        self._began, self._leave_at_once = began, leave_at_once

        self.run_on(listener, lambda: SharingLoop(self.connections, self._settings.max_connections))

    def begin(self) -> None:
        self._living = asyncio.get_running_loop().create_task(self._show_signs_of_life())
        self._place.line.setblocking(False)
        self._place.tell("listening")

    def take_connections(self) -> None:
        loop = asyncio.get_running_loop()
        self._place.metrics.set_ready(ready=True)
        self._place.tell("ready")
        seconds = round(time.monotonic() - self._began, 3)
        _log.info("ready", worker=self._place.index, process=os.getpid(), seconds=seconds)
        loop.add_reader(self._place.line, self._read_order)
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        if self._leave_at_once:
            self._leave()

    async def end(self, listeners: list[Listener]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.shutdown_grace_s
        for listener in listeners:
            if self._lifecycle.service_stopping:
                listener.close_for_all()
            else:
                listener.close()
            await listener.wait_closed()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end), asyncio.TaskGroup() as draining:
                draining.create_task(self._drain())
                if self._rpc is not None:
                    draining.create_task(self._rpc.stop(max(0.0, end - loop.time())))
        unanswered = sum(not connection.is_idle for connection in self.connections)
        if unanswered:
            _log.error("stopped before all was answered", worker=self._place.index, connections=unanswered)
        # Ends the models: requests that still wait for one are rejected.
        await _within(self.end_lifespan(), _END_MARGIN_S)
        await _within(self.connections.wait_empty(), _LAST_ANSWERS_S)
        if self._living is not None:
            self._living.cancel()

    async def _drain(self) -> None:
        """Wait until every connection has ended: those with a request after its answer, idle ones soon."""
        await _within(self.connections.wait_empty(), _LINGER_S)
        for connection in list(self.connections):
            connection.shutdown()
        await self.connections.wait_empty()
        await wait_all(self.tasks)

    @property
    def _rpc(self) -> "RpcServer | None":
        return cast("RpcServer | None", self.application_state.get("rpc"))

    # Orders

    def _read_order(self) -> None:
        try:
            order = self._place.line.recv(1)
        except BlockingIOError:
            return
        except ConnectionResetError:  # the supervisor ended and left messages of this worker unread
            order = b""
        if order == STOP:
            self._begin_to_stop(service=True, delay_s=self._settings.shutdown_delay_s)
        elif order == RETIRE:
            self._begin_to_stop(service=False)
        else:
            asyncio.get_running_loop().remove_reader(self._place.line)
            _log.error("the supervisor is gone; this worker stops", worker=self._place.index)
            signal.alarm(self._settings.shutdown_grace_s + 10)  # nobody else could kill it if it hangs
            self._begin_to_stop(service=True)

    def _leave(self) -> None:
        """Ask to be replaced. A signal calls this, from outside or from this worker.

        The supervisor answers with an order: to retire, or, if the signal was for the whole process group, to stop with
        the delay in which requests are still taken.
        """
        self._place.tell("leaving")

    def _begin_to_stop(self, *, service: bool, delay_s: float = 0.0) -> None:
        self._lifecycle.stopping = True
        self._lifecycle.service_stopping = self._lifecycle.service_stopping or service
        self._place.metrics.set_ready(ready=False)
        if self._rpc is not None and self._saying is None:
            self._saying = asyncio.get_running_loop().create_task(self._rpc.say_not_serving())
        asyncio.get_running_loop().call_later(delay_s, self.drain)

    async def _show_signs_of_life(self) -> None:
        while True:
            self._place.metrics.sign_of_life(resident_bytes=_resident_bytes())
            stuck = self._self_check.look()
            if stuck is not None and not self._lifecycle.stopping:
                _log.error("this worker is stuck and is replaced", worker=self._place.index, reason=stuck)
                self._leave()
            await asyncio.sleep(_SIGN_OF_LIFE_S)


async def _within(waiting: Any, seconds: float) -> None:
    """Wait for an awaitable, at most this long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting


def _resident_bytes() -> int | None:
    """Return the resident memory of this process, if the system reports it."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
