"""POST /predict and POST /predict/batch as FastAPI routes: what OpenAPI documents."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.bodies.content_coding import content_encoding, refuse_coding
from app.api.errors import log_failure
from app.api.guard.request_context import note_model
from app.api.openapi.examples import TOP_K
from app.api.openapi.schemas import BatchAnswer, PredictionAnswer, error_responses
from app.api.predictor import Answered, Predictor
from app.api.server_timing import SERVER_TIMING_HEADER

TopK = Annotated[int | None, Query(ge=1, description="Only the k most probable labels, best first.", examples=[TOP_K])]
ModelName = Annotated[str | None, Query(description="The model to ask, where several are served.")]

_PICTURE = {"type": "string", "format": "binary"}
_PREDICT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _PICTURE}}
            },
            "image/*": {"schema": _PICTURE},
            "application/octet-stream": {"schema": _PICTURE},
        },
    }
}
_BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": _PICTURE}},
                }
            }
        },
    }
}


def predict_routes(predictor: Predictor) -> APIRouter:
    router = APIRouter(tags=["predict"])

    @router.post(
        "/predict",
        summary="Classify one picture",
        response_model=PredictionAnswer,
        responses=error_responses(400, 404, 413, 415, 422, 500, 503, 504),
        openapi_extra=_PREDICT_BODY,
    )
    async def predict(request: Request, top_k: TopK = None, model: ModelName = None) -> Response:
        """Send the picture as the multipart field `file`, or as the whole body with an `image/*` content type."""
        return await _answered(predictor, predictor.predict, request, top_k, model)

    @router.post(
        "/predict/batch",
        summary="Classify many pictures",
        response_model=BatchAnswer,
        responses=error_responses(400, 404, 413, 415, 500, 503, 504),
        openapi_extra=_BATCH_BODY,
    )
    async def predict_batch(request: Request, top_k: TopK = None, model: ModelName = None) -> Response:
        """Send the pictures as multipart fields `files`. Each gets an entry; one that cannot be used fails alone."""
        return await _answered(predictor, predictor.predict_batch, request, top_k, model)

    return router


async def _answered(
    predictor: Predictor,
    predict: Callable[..., Awaitable[Answered]],
    request: Request,
    top_k: int | None,
    model: str | None,
) -> Response:
    asked = predictor.model(model)
    note_model(request, asked)
    refuse_coding(content_encoding(request.headers))
    answered = await predict(
        asked,
        request.receive,
        content_type=request.headers.get("content-type", ""),
        content_length=request.headers.get("content-length", ""),
        asked_timeout=request.headers.get("x-request-timeout", ""),
        top_k=top_k,
    )
    note_model(request, answered.model)
    for failure in answered.failures:
        log_failure(request, failure)
    headers = {SERVER_TIMING_HEADER: answered.server_timing.decode("ascii")}
    return Response(answered.body, media_type="application/json", headers=headers)
