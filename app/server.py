"""Run the service: bind the port, and serve from this process or from supervised workers.

With several workers this process only watches over them, so it imports nothing that they need: no FastAPI, NumPy,
OpenCV or engine. That is memory and half a second of the start.
"""

import errno
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.engines.cores import available_cores
from app.errors import InvalidSetting
from app.settings import Settings, unknown_variables
from app.telemetry import configure_logging

if TYPE_CHECKING:
    from fastapi import FastAPI

_HUNG_AFTER_S = 30
"""Seconds without a sign of life after which a worker is replaced. One that compiles a large network on a busy machine
is silent for longer than uvicorn's own 5 s; one that has died is noticed at once."""

_MOST_WORKERS = 4
"""Workers that are started where no number is set: each takes memory for the models, and more cores than that are
rarely all for one service."""

_log = structlog.stdlib.get_logger(__name__)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Raises an ImageclassError where nothing can be served."""
    configure_logging(settings.log_format, settings.log_level)
    settings = with_workers(settings)
    for sentence in unknown_variables():
        _log.warning("unknown setting", reason=sentence)
    # Until uvicorn takes the signals over, a stop is immediate; process 1 of a container has no default for SIGTERM.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    with _bind(settings) as listener:
        host, port = listener.getsockname()[:2]
        _log.info("starting", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", workers=settings.workers)
        if settings.workers > 1:
            return _serve_with_workers(settings, listener)
        from app.main import process_app  # not for a supervisor

        app = process_app(settings)
        # uvicorn raises the signal that stopped it again when it has drained. By then all is done: a clean stop is 0.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda _signal, _frame: None)
        uvicorn.Server(uvicorn_config(settings, app)).run([listener])
        return 0


def with_workers(settings: Settings) -> Settings:
    """Return the settings with the number of workers that is meant where none is set."""
    if settings.workers:
        return settings
    return settings.model_copy(update={"workers": min(available_cores(), _MOST_WORKERS)})


def _serve_with_workers(settings: Settings, listener: socket.socket) -> int:
    os.environ.update(settings.to_environment())  # what `worker_app` reads in the new processes
    supervisor = Multiprocess(uvicorn_config(settings, "app.main:worker_app"), [listener])
    supervisor.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes) else 0


def _bind(settings: Settings) -> socket.socket:
    """Take the port before any model is loaded, so that the commonest mistake is told at once; nothing listens yet."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        if listener is not None:
            listener.close()
        what = f"{settings.host}:{settings.port}"
        if exc.errno == errno.EADDRINUSE:
            raise InvalidSetting(f"{what} is in use by another program. Set IMAGECLASS_PORT to a free port.") from exc
        raise InvalidSetting(f"{what} cannot be listened on: {exc.strerror}. Set IMAGECLASS_HOST and _PORT.") from exc
    listener.set_inheritable(True)
    return listener


def uvicorn_config(settings: Settings, app: "FastAPI | str") -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        log_level="warning" if settings.workers == 1 else "info",  # with several, what became of each worker
        loop="app.accepting:SharingLoop" if settings.workers > 1 else "uvloop",
        http="app.api.fast_path:FastPathProtocol",
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # a middleware around every request, for a client address that nothing here asks for
        timeout_keep_alive=settings.keep_alive_s,
        timeout_worker_healthcheck=_HUNG_AFTER_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
