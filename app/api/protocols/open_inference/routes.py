"""The protocol over HTTP: the routes below /v2.

Bodies are parsed here, not by FastAPI: tritonclient sends no Content-Type, without which FastAPI rejects JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.http1.fast_routes import FastRoute
from app.api.http_request import answer_request, read_small_body
from app.api.inference import Inference, Question
from app.api.lifecycle import Lifecycle
from app.api.openapi.schemas import error_responses
from app.api.protocols.model_routes import MODEL_PATHS, ModelName, ModelRoutes, model_and_version
from app.api.protocols.open_inference.metadata import model_configuration, model_metadata, server_metadata
from app.api.protocols.open_inference.questions import JSON_LENGTH_HEADER, HttpInfer, readers_of
from app.api.protocols.open_inference.repository import Repository
from app.api.protocols.open_inference.requests import parameters_of
from app.api.protocols.open_inference.schemas import (
    CHANGE_REQUEST,
    INDEX_REQUEST,
    INFER_REQUEST,
    Changed,
    IndexEntry,
    InferAnswer,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from app.api.protocols.open_inference.statistics import model_statistics
from app.api.questions import Questions
from app.api.routes.health import require_ready
from app.errors import MalformedRequest
from app.metrics import Metrics

_ROOT = "/v2/models"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_JSON_LENGTH = {
    "description": "How many bytes of the body are JSON; the tensor's binary data follows.",
    "schema": {"type": "integer", "minimum": 0},
}
_INFER = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": INFER_REQUEST}, "application/octet-stream": _BINARY},
    },
    "parameters": [{"name": JSON_LENGTH_HEADER, "in": "header", "required": False, **_JSON_LENGTH}],
}
_CHANGE = {"requestBody": {"content": {"application/json": {"schema": CHANGE_REQUEST}}}}
_INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The probabilities of every picture, in the order sent.",
        "content": {"application/octet-stream": _BINARY},
        "headers": {JSON_LENGTH_HEADER: _JSON_LENGTH},
    }
}


def open_inference_routes(
    questions: Questions, repository: Repository, *, lifecycle: Lifecycle, metrics: Metrics, version: str
) -> APIRouter:
    """`version` is the service's."""
    inference = questions.inference
    readers = readers_of(inference)
    router = APIRouter(tags=["Open Inference Protocol v2"])

    @router.get("/v2", summary="Server name, version and extensions", response_model=ServerMetadata)
    async def server() -> dict[str, Any]:
        return server_metadata(version)

    @router.get("/v2/health/live", summary="Liveness", response_model=ServerLive)
    async def live() -> dict[str, Any]:
        return {"live": True}

    @router.get(
        "/v2/health/ready",
        summary="Readiness",
        response_model=ServerReady,
        responses=error_responses(503),
    )
    async def ready() -> dict[str, Any]:
        require_ready(lifecycle, metrics)
        return {"live": True, "ready": True}

    @router.get("/v2/models/stats", summary="Statistics of all models", response_model=ModelStatistics)
    async def all_statistics() -> dict[str, Any]:
        return model_statistics(metrics, inference.catalogue.models)

    async def statistics(_: Request, name: str, asked: str | None) -> dict[str, Any]:
        return model_statistics(metrics, [inference.catalogue.get(name, asked)])

    async def metadata(_: Request, name: str, asked: str | None) -> dict[str, Any]:
        return model_metadata(inference.catalogue.get(name, asked))

    async def model_ready(_: Request, name: str, asked: str | None) -> dict[str, Any]:
        model = inference.catalogue.get(name, asked)
        require_ready(lifecycle, metrics)
        return {"name": model.name, "ready": True}

    async def configuration(_: Request, name: str, asked: str | None) -> dict[str, Any]:
        return model_configuration(
            inference.catalogue.get(name, asked), max_batch_pictures=inference.limits.max_batch_pictures
        )

    async def infer(request: Request, name: str, asked: str | None) -> Response:
        """Send encoded pictures as BYTES [N], or preprocessed ones as UINT8 [N, H, W, C]."""
        question = HttpInfer(questions, readers, name, asked, request.headers.get(JSON_LENGTH_HEADER))
        return await answer_request(inference, request, question, max_bytes=inference.limits.max_batch_bytes)

    routes = ModelRoutes(router, _ROOT)
    routes.add("GET", "", metadata, "One model: its input and output", ModelMetadata, 404)
    routes.add("GET", "/ready", model_ready, "The model takes requests", ModelReady, 404, 503)
    routes.add("GET", "/config", configuration, "The model's configuration, in Triton's form", dict[str, Any], 404)
    routes.add("GET", "/stats", statistics, "The model's statistics", ModelStatistics, 404)
    routes.add(
        "POST",
        "/infer",
        infer,
        "Classify pictures",
        InferAnswer,
        *(404, 413, 415, 422, 503, 504),
        responses=_INFERRED,
        openapi_extra=_INFER,
        response_model_exclude_unset=True,
    )
    _add_repository(router, inference, repository)
    return router


def open_inference_fast_routes(questions: Questions) -> list[FastRoute]:
    readers = readers_of(questions.inference)
    header = JSON_LENGTH_HEADER.lower().encode("ascii")

    def infer(names: Sequence[str], query: bytes, fields: Mapping[bytes, bytes]) -> Question | None:
        if query:
            return None
        length = fields.get(header)
        text = None if length is None else length.decode("latin-1")
        return HttpInfer(questions, readers, *model_and_version(names), text)

    return [FastRoute(f"{_ROOT}/{path}/infer", infer) for path in MODEL_PATHS]


def _add_repository(router: APIRouter, inference: Inference, repository: Repository) -> None:
    async def said(request: Request) -> dict[str, Any]:
        """Return the JSON object in a request's body, {} if the body is empty."""
        body = await read_small_body(inference, request)
        message = inference.parse_json(body) if body else {}
        if not isinstance(message, dict):
            raise MalformedRequest("The body must be empty or a JSON object.")
        return message

    @router.post(
        "/v2/repository/index",
        summary="Versions in the model store",
        response_model=list[IndexEntry],
        responses=error_responses(413, 415, 503),
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": INDEX_REQUEST}}}},
    )
    async def index(request: Request) -> list[dict[str, Any]]:
        """Every version, and whether it is served. The body may be empty."""
        ready = (await said(request)).get("ready")
        if ready is not None and not isinstance(ready, bool):
            raise MalformedRequest("'ready' must be true (only served versions) or false (all).")
        return await repository.index(only_ready=bool(ready))

    @router.post(
        "/v2/repository/models/{model}/load",
        summary="Load a model",
        response_model=Changed,
        responses=error_responses(403, 404, 413, 415, 503, 504),
        openapi_extra=_CHANGE,
    )
    async def load(request: Request, model: ModelName) -> dict[str, Any]:
        """Answers when the pinned version, else the newest, is live; other workers follow within a moment."""
        await repository.load(model, parameters_of(await said(request), "The request"))
        return {}

    @router.post(
        "/v2/repository/models/{model}/unload",
        summary="Unload a model",
        response_model=Changed,
        responses=error_responses(403, 404, 413, 415, 503, 504),
        openapi_extra=_CHANGE,
    )
    async def unload(request: Request, model: ModelName) -> dict[str, Any]:
        """Answers when it is not; other workers follow within a moment. The last model, and the default one, stay."""
        await said(request)
        await repository.unload(model)
        return {}
