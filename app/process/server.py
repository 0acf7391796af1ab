"""Run the service: bind the port, and have workers serve on it.

This process imports nothing heavy before the port is bound, so that the commonest mistakes are reported at once.
"""

import errno
import mmap
import os
import signal
import socket
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import structlog

from app.errors import InvalidSetting
from app.metrics import ROW_BYTES, Metrics
from app.process.supervisor import Supervisor
from app.process.worker_process import Place
from app.settings import Settings, ignored_variables
from app.system.cores import available_cores
from app.system.invocation import installs
from app.telemetry import configure_logging
from app.tracing.environment import check_tracing

_MOST_WORKERS = 4
"""The most workers to start by default: each takes memory for the models, and one service rarely has more cores for
itself."""

_log = structlog.stdlib.get_logger(__name__)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Raises an ImageclassError if nothing can be served."""
    configure_logging(settings.log_format, settings.log_level)
    settings = with_workers(settings)
    check_tracing(os.environ)
    for sentence in ignored_variables():
        _log.warning("variable ignored", reason=sentence)
    # Until the supervisor handles signals, stop at once. Process 1 of a container has no default handler for it.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    with _bind(settings, settings.port, "IMAGECLASS_PORT") as listener, _keep_grpc_port(settings):
        host, port = listener.getsockname()[:2]
        _log.info("starting", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", workers=settings.workers)
        return _supervise(settings, listener)


def with_workers(settings: Settings) -> Settings:
    """Return the settings with the default number of workers if none is set."""
    if settings.workers:
        return settings
    return settings.model_copy(update={"workers": min(available_cores(), _MOST_WORKERS)})


def _supervise(settings: Settings, listener: socket.socket) -> int:
    if sys.platform == "linux":  # on other systems, imported libraries may not survive a fork
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # at import NumPy would start threads, which a fork would lose
        from app.process.worker import preload

        preload()

    def work(place: Place) -> int:
        from app.process.worker import work as in_worker

        return in_worker(place, settings, listener)

    rows = 2 * settings.workers  # while a worker drains, its successor counts in a row of its own
    memory = memoryview(mmap.mmap(-1, rows * ROW_BYTES))
    shared = [memory[row * ROW_BYTES : (row + 1) * ROW_BYTES] for row in range(rows)]
    return Supervisor(
        work,
        workers=settings.workers,
        rows=[Metrics(shared, row) for row in range(rows)],
        close=listener.close,
        hung_after_s=settings.worker_hung_after_s,
        stop_within_s=settings.shutdown_delay_s + settings.shutdown_grace_s,
    ).run()


def _keep_grpc_port(settings: Settings) -> AbstractContextManager[object]:
    """Reserve the port of gRPC, on which every worker then listens with a socket of its own.

    The reserving socket does not listen: it only keeps other programs from the port. Raises InvalidSetting.
    """
    if not settings.grpc_port:
        return nullcontext()
    if find_spec("grpc_health") is None:
        raise InvalidSetting(
            f"IMAGECLASS_GRPC_PORT is set, but gRPC is not installed: {installs('grpc')}, or leave it at 0."
        )
    return _bind(settings, settings.grpc_port, "IMAGECLASS_GRPC_PORT", shared=True)


def _bind(settings: Settings, port: int, setting: str, *, shared: bool = False) -> socket.socket:
    """Bind the port before any model is loaded, so that the commonest mistake is reported at once; do not listen."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as exc:
        if listener is not None:
            listener.close()
        what = f"{settings.host}:{port}"
        if exc.errno == errno.EADDRINUSE:
            raise InvalidSetting(f"{what} is in use by another program. Set {setting} to a free port.") from exc
        raise InvalidSetting(
            f"The service cannot listen on {what}: {exc.strerror}. Set IMAGECLASS_HOST and {setting}."
        ) from exc
    return listener
