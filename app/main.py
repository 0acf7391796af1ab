"""Put the service together: `create_app(settings, loaded)` builds the FastAPI application, `serve` runs it.

A model is loaded and proven before the application exists, so a service that cannot answer never listens.
"""

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.api.errors import install_error_handlers
from app.api.fast_path import FastPathApp
from app.api.health import health_routes
from app.api.models import model_routes
from app.api.openapi import install_openapi
from app.api.predict import predict_routes
from app.api.predictor import Predictor
from app.contract.store import ModelStore
from app.engines.loading import available_cores
from app.errors import ImageclassError, InvalidSetting
from app.serving.catalogue import Catalogue, LoadedStore, load_store
from app.settings import Settings, unknown_variables
from app.telemetry import configure_logging

_HUNG_AFTER_S = 30
"""Seconds without a sign of life after which a worker is replaced. One that compiles a large network on a busy machine
is silent for longer than uvicorn's own 5 s; one that has died is noticed at once."""

_log = structlog.stdlib.get_logger(__name__)


def create_app(settings: Settings, loaded: LoadedStore) -> FastAPI:
    """Return the application that serves the models of `loaded`."""
    catalogue = open_catalogue(settings, loaded)
    predictor = Predictor(
        catalogue,
        request_timeout_s=settings.request_timeout_s,
        max_upload_bytes=settings.max_upload_bytes,
        max_batch_bytes=settings.max_batch_bytes,
        max_batch_pictures=settings.max_batch_pictures,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # uvicorn closes its listeners and waits for the requests in flight before it ends this block.
        async with catalogue:
            _log.info("ready", models=[f"{model.manifest.name}/{model.manifest.version}" for model in catalogue.models])
            yield

    app = FastPathApp(
        predictor,
        title="imageclass",
        summary="Send a picture, get class probabilities.",
        version=_version(),
        lifespan=lifespan,
        # FastAPI's own tracing costs 4 to 21 % of the requests even where nothing collects it.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        redoc_url=None,
    )
    install_error_handlers(app)
    install_openapi(app)
    app.include_router(predict_routes(predictor))
    app.include_router(health_routes(catalogue))
    app.include_router(model_routes(catalogue))
    return app


def open_catalogue(settings: Settings, loaded: LoadedStore) -> Catalogue:
    """Return the catalogue of the loaded models under the limits of the settings; the caller enters and leaves it."""
    return Catalogue(
        loaded,
        default=settings.model,
        max_pending=settings.max_pending,
        max_pixels=settings.max_pixels,
        max_batch_size=settings.max_batch_size,
        shutdown_grace_s=settings.shutdown_grace_s,
    )


def load_from(settings: Settings, *, only: str | None = None) -> LoadedStore:
    """Load the store that the settings name, or one model of it. Raises an ImageclassError that says why not."""
    threads = settings.inference_threads or max(1, available_cores() // settings.workers)
    return load_store(
        ModelStore(settings.model_store),
        engine=settings.engine,
        threads=threads,
        max_batch_size=settings.max_batch_size,
        only=only,
    )


def worker_app() -> FastAPI:
    """Build the application in a worker process from its environment; uvicorn's supervisor calls this by name."""
    settings = Settings.load()
    configure_logging(settings.log_format, settings.log_level)
    try:
        return create_app(settings, load_from(settings))
    except ImageclassError as exc:
        # The supervisor stops at this exit code instead of starting a worker that fails in the same way again.
        _log.error("cannot start", reason=str(exc))
        sys.exit(STARTUP_FAILURE)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Raises an ImageclassError where nothing can be served."""
    configure_logging(settings.log_format, settings.log_level)
    for sentence in unknown_variables():
        _log.warning("unknown setting", reason=sentence)
    # Until uvicorn takes the signals over, a stop is immediate; process 1 of a container has no default for SIGTERM.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    with _bind(settings) as listener:
        host, port = listener.getsockname()[:2]
        _log.info("starting", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", workers=settings.workers)
        if settings.workers > 1:
            return _serve_with_workers(settings, listener)
        app = create_app(settings, load_from(settings))
        # uvicorn raises the signal that stopped it again when it has drained. By then all is done: a clean stop is 0.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda _signal, _frame: None)
        uvicorn.Server(_uvicorn_config(settings, app)).run([listener])
        return 0


def _serve_with_workers(settings: Settings, listener: socket.socket) -> int:
    os.environ.update(settings.to_environment())  # what `worker_app` reads in the new processes
    supervisor = Multiprocess(_uvicorn_config(settings, "app.main:worker_app"), [listener])
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


def _uvicorn_config(settings: Settings, app: FastAPI | str) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        log_level="warning" if settings.workers == 1 else "info",  # with several, what became of each worker
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # a middleware around every request, for a client address that nothing here asks for
        timeout_keep_alive=settings.keep_alive_s,
        timeout_worker_healthcheck=_HUNG_AFTER_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )


def _version() -> str:
    try:
        return version("imageclass")
    except PackageNotFoundError:  # run from a checkout
        return "0+checkout"
