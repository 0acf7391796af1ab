"""Put the service together: `create_app(settings, loaded)` builds the FastAPI application.

A model is loaded and proven before the application exists, so a service that cannot answer never listens.
"""

import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api.errors import install_error_handlers
from app.api.guard.access import Gate
from app.api.guard.cors import Cors, cors_origins
from app.api.guard.hosts import AllowedHosts
from app.api.guard.keys import ApiKeys
from app.api.guard.request_context import Checked, Entrance
from app.api.http1.asgi import AsgiExchange
from app.api.http1.connection import Limits as ConnectionLimits
from app.api.http1.connection import Services
from app.api.http1.fast_path import FastPath
from app.api.http1.fast_routes import FastRoutes
from app.api.http1.shedding import Shedding
from app.api.inference import Inference, RequestLimits
from app.api.lifecycle import Lifecycle
from app.api.openapi.document import install_openapi
from app.api.protocols.open_inference.repository import Repository
from app.api.protocols.open_inference.routes import open_inference_fast_routes, open_inference_routes
from app.api.protocols.tensorflow_serving.routes import tensorflow_serving_fast_routes, tensorflow_serving_routes
from app.api.questions import Questions
from app.api.routes.docs import docs_routes, document_keys
from app.api.routes.explain import explain_routes
from app.api.routes.health import health_routes
from app.api.routes.metrics import metrics_routes
from app.api.routes.models import model_routes
from app.api.routes.page import PageFacts, page_routes
from app.api.routes.predict import predict_fast_routes, predict_routes
from app.contract.answer_options import AnswerSettings
from app.contract.store import ModelStore
from app.errors import BundleError, InvalidSetting, ObjectStoreError
from app.metrics import Metrics
from app.object_storage.follower import Follower
from app.object_storage.mirror import Mirror, folder_at, mirror_at
from app.serving.admission import Admission
from app.serving.catalogue import Catalogue
from app.serving.classifier import Limits
from app.serving.control import ModelControl
from app.serving.self_check import SelfCheck
from app.serving.store_watcher import Watcher
from app.serving.tuning import TuningOptions
from app.serving.versions import LoadedStore, Loader, load_store
from app.settings import Settings
from app.system.allocator import give_back_freed_memory
from app.system.cores import available_cores
from app.system.release import release
from app.telemetry import keep_standard_error_for_the_log
from app.tracing.environment import open_exporter
from app.tracing.trace import Tracer

if TYPE_CHECKING:
    from app.api.protocols.open_inference.rpc_server import RpcServer
    from app.tracing.otlp import Exporter

_LONGEST_BURST_S = 2.0
"""A burst is accepted if it can be answered within this time, or within half of the deadline."""
_LIFE_MARGIN_S = 10.0
"""Seconds by which a request may exceed its arrival time and deadline before the worker counts as stuck."""


def create_app(
    settings: Settings,
    loaded: LoadedStore,
    metrics: Metrics | None = None,
    lifecycle: Lifecycle | None = None,
    exporter: "Exporter | None" = None,
) -> FastAPI:
    """Return the application that serves the models of `loaded`. With an exporter, requests are traced."""
    if settings.model_control and not settings.reload_interval_s:
        raise InvalidSetting(
            "IMAGECLASS_MODEL_CONTROL works only if the service follows its store. Set "
            "IMAGECLASS_RELOAD_INTERVAL_S above 0."
        )
    metrics = metrics or Metrics()
    lifecycle = lifecycle or Lifecycle()
    gate = open_gate(settings, metrics, None if exporter is None else exporter.tracer)
    catalogue = open_catalogue(settings, loaded, metrics)
    watcher = Watcher(loader(settings), loaded, catalogue, interval_s=settings.reload_interval_s)
    inference = Inference(catalogue, request_limits(settings))
    questions = Questions(inference, AnswerSettings(settings.min_probability, settings.false_alarms))

    mirror = mirror_of(settings)
    store = store_of(settings)
    control = ModelControl(store, catalogue, watcher, allowed=settings.model_control)
    repository = Repository(store, catalogue, control)

    def open_rpc_server() -> "RpcServer":
        # Imported here, after the fork: gRPC's threads would not survive one.
        from app.api.protocols.open_inference.rpc import OpenInferenceService
        from app.api.protocols.open_inference.rpc_server import RpcServer

        service = OpenInferenceService(
            questions, repository, gate=gate, lifecycle=lifecycle, metrics=metrics, version=release()
        )
        return RpcServer(
            service,
            address=f"{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.grpc_port}",
            max_message_bytes=settings.max_batch_bytes,
            max_calls=settings.max_pending,
        )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # The server closes its listener and waits for the requests in flight before it ends this block.
        # The watcher ends last: what it loads must not keep the requests in flight from their answers.
        async with AsyncExitStack() as stack:
            if exporter is not None:
                await stack.enter_async_context(exporter)
            if mirror is not None:
                await stack.enter_async_context(Follower(mirror, interval_s=settings.reload_interval_s))
            await stack.enter_async_context(watcher)
            await stack.enter_async_context(catalogue)
            rpc = None
            if settings.grpc_port:
                rpc = await stack.enter_async_context(open_rpc_server())
            yield {"connections": connection_services(settings, questions, gate, lifecycle), "rpc": rpc}
            gate.close()

    app = _Service(
        gate,
        origins=[] if settings.cors_origins is None else cors_origins(settings.cors_origins),
        title="imageclass",
        summary="Classify pictures: send a picture, get the probability of each class.",
        version=release(),
        lifespan=lifespan,
        # FastAPI's own tracing costs 4 to 21 % of the requests even if nothing collects it. Ours is `app.tracing`.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere
        openapi_url=None if settings.docs_access == "off" else "/openapi.json",
        redoc_url=None,
        # A redirect would send clients of a proxy that ends TLS, keys and all, to http:// once more.
        redirect_slashes=False,
    )
    install_error_handlers(app)
    install_openapi(app, catalogue)
    if settings.api_keys is not None or settings.api_keys_file is not None:
        document_keys(app, open_paths=gate.open_paths)
    app.state.inference = inference
    app.include_router(predict_routes(questions))
    app.include_router(explain_routes(questions, allowed=settings.max_explanations > 0))
    app.include_router(
        health_routes(
            catalogue,
            lifecycle=lifecycle,
            metrics=metrics,
            workers=settings.workers or 1,
            store_health=None if mirror is None else mirror.health,
        )
    )
    app.include_router(model_routes(catalogue))
    app.include_router(tensorflow_serving_routes(inference))
    app.include_router(
        open_inference_routes(questions, repository, lifecycle=lifecycle, metrics=metrics, version=app.version)
    )
    if settings.docs_access != "off":
        app.include_router(docs_routes())
    if settings.page_access != "off":
        app.include_router(page_routes(catalogue, page_facts(settings)))
    if settings.metrics_access != "off":
        app.include_router(metrics_routes(metrics, version=app.version))
    return app


class _Service(FastAPI):
    """FastAPI with the gate around everything, including FastAPI's own error handling."""

    def __init__(self, gate: Gate, *, origins: Sequence[str], **options: Any) -> None:
        self._gate = gate
        self._origins = origins
        super().__init__(**options)

    def build_middleware_stack(self) -> ASGIApp:
        inside: ASGIApp = Checked(super().build_middleware_stack(), self._gate)
        if self._origins:
            inside = Cors(inside, self._origins)
        return Entrance(inside, self._gate)


def connection_services(settings: Settings, questions: Questions, gate: Gate, lifecycle: Lifecycle) -> Services:
    """Return the handlers and limits that the connections of a worker share."""
    cors = settings.cors_origins is not None
    inference = questions.inference
    admission = inference.admission
    routes = FastRoutes(
        [
            *predict_fast_routes(questions),
            *open_inference_fast_routes(questions),
            *tensorflow_serving_fast_routes(inference),
        ]
    )
    fast_path = FastPath(inference, gate, routes, cors=cors)
    shedding = Shedding(admission, gate, routes, cors=cors)
    return Services(
        gate=gate,
        lifecycle=lifecycle,
        limits=ConnectionLimits(
            max_header_bytes=settings.max_header_bytes,
            receive_timeout_s=settings.receive_timeout_s,
            keep_alive_s=settings.keep_alive_s,
        ),
        overloaded=lambda: admission.overloaded,
        reject_unread=shedding.reject_unread,
        reject_early=shedding.reject_early,
        fast_path=fast_path.open,
        application=AsgiExchange,
    )


def open_gate(settings: Settings, metrics: Metrics, tracer: Tracer | None = None) -> Gate:
    """Return the gate that the settings ask for. Raises InvalidSetting if they contradict each other."""
    given = None if settings.api_keys is None else settings.api_keys.get_secret_value()
    keys = None if given is None and settings.api_keys_file is None else ApiKeys(given, settings.api_keys_file)
    for name, access in (
        ("METRICS", settings.metrics_access),
        ("DOCS", settings.docs_access),
        ("PAGE", settings.page_access),
    ):
        if access == "key" and keys is None:
            raise InvalidSetting(f"IMAGECLASS_{name}_ACCESS is 'key', but there is none. Set IMAGECLASS_API_KEYS too.")
    return Gate(
        keys=keys,
        allowed_hosts=None if settings.allowed_hosts is None else AllowedHosts(settings.allowed_hosts),
        metrics_access=settings.metrics_access,
        docs_access=settings.docs_access,
        page_access=settings.page_access,
        metrics=metrics,
        access_log=settings.access_log,
        tracer=tracer,
    )


def open_catalogue(settings: Settings, loaded: LoadedStore, metrics: Metrics) -> Catalogue:
    """Return the catalogue of the loaded models under the limits of the settings; the caller enters and leaves it."""
    return Catalogue(
        loaded,
        default=settings.model,
        admission=Admission(
            max_pictures=settings.max_pending,
            max_bytes=settings.max_pending_bytes,
            burst_s=min(_LONGEST_BURST_S, settings.request_timeout_s / 2),
            metrics=metrics,
            max_explanations=settings.max_explanations,
        ),
        limits=Limits(
            max_pixels=settings.max_pixels,
            max_pending=settings.max_pending,
            accepted_formats=frozenset(settings.accepted_formats.split(",")),
            inference_timeout_s=settings.inference_timeout_s,
        ),
        metrics=metrics,
        give_up=_ask_to_be_replaced,
        decode_threads=_cores_of_one(settings),
        # The server spends the grace period on the connections, before it closes the catalogue. Pictures that are still
        # queued then are rejected.
        shutdown_grace_s=0.0,
        retire_grace_s=settings.request_timeout_s,  # by then each of its pictures is answered, or past its deadline
    )


def page_facts(settings: Settings) -> PageFacts:
    return PageFacts(
        model=settings.model,
        docs=settings.docs_access != "off",
        explanations=settings.max_explanations > 0,
        samples=settings.page_samples,
        formats=tuple(settings.accepted_formats.split(",")),
    )


def self_check(settings: Settings, admission: Admission, metrics: Metrics) -> SelfCheck:
    """Return the self-check of a worker's admission; the settings determine how long a request may live."""
    longest_s = settings.receive_timeout_s + settings.request_timeout_s + _LIFE_MARGIN_S
    return SelfCheck(admission, metrics, longest_s=longest_s)


def request_limits(settings: Settings) -> RequestLimits:
    return RequestLimits(
        timeout_s=settings.request_timeout_s,
        max_upload_bytes=settings.max_upload_bytes,
        max_batch_bytes=settings.max_batch_bytes,
        max_batch_pictures=settings.max_batch_pictures,
        max_form_fields=settings.max_form_fields,
        max_json_values=settings.max_json_values,
    )


def load_from(settings: Settings, *, only: str | None = None) -> LoadedStore:
    """Load the store that the settings name, or one model of it. Raises an ImageclassError that says why not."""
    open_store(settings)
    mirror = mirror_of(settings)
    while True:
        try:
            return load_store(loader(settings), only=only, required=settings.model)
        except BundleError:
            if mirror is None or not _has_older(mirror):
                raise


def mirror_of(settings: Settings) -> Mirror | None:
    """Return this machine's copy of the bucket that the settings name; None if they name a folder."""
    return mirror_at(settings.model_store, settings.model_cache, max_bytes=settings.model_cache_bytes)


def store_of(settings: Settings) -> ModelStore:
    """Return the folder of models to serve: the one that the settings name, or the copy of a bucket."""
    return folder_at(settings.model_store, settings.model_cache)


def open_store(settings: Settings) -> ModelStore:
    """Return the folder of models to serve.

    If the store is a bucket, pull the versions to be served first. Raises an ImageclassError.
    """
    mirror = mirror_of(settings)
    if mirror is not None:
        mirror.start()
    return store_of(settings)


def _has_older(mirror: Mirror) -> bool:
    """Pull the next version in order, because those here fail their check; return whether there was one."""
    try:
        return mirror.fetch_older()
    except ObjectStoreError:
        return False


def loader(settings: Settings) -> Loader:
    """Return a loader of versions from the store, with the engine, precision and bounds that the settings name."""
    return Loader(
        store_of(settings),
        engine=settings.engine,
        threads=settings.inference_threads or _cores_of_one(settings),
        precision=settings.precision,
        false_alarms=settings.false_alarms,
        tuning=TuningOptions(
            max_batch_size=settings.max_batch_size,
            inference_place=settings.inference_place,
            inline_decode_pixels=settings.inline_decode_pixels,
        ),
    )


def _ask_to_be_replaced() -> None:
    """Ask to be replaced: this worker finishes its accepted requests, and another one takes its place."""
    os.kill(os.getpid(), signal.SIGTERM)


def _cores_of_one(settings: Settings) -> int:
    """Return a worker's share of the available cores, at least 1."""
    return max(1, available_cores() // (settings.workers or 1))


def worker_app(settings: Settings, metrics: Metrics, lifecycle: Lifecycle) -> FastAPI:
    """Load the models and return the application, for a process that does nothing else from now on.

    Raises an ImageclassError that says why there is nothing to serve.
    """
    keep_standard_error_for_the_log(settings.log_format, settings.log_level)
    give_back_freed_memory()
    exporter = open_exporter(os.environ, version=release())
    app = create_app(settings, load_from(settings), metrics, lifecycle, exporter)
    # What exists now stays: no collection of garbage needs to look at it again. It would take 70 ms, amid requests.
    gc.freeze()
    return app
