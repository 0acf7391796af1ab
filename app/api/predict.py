"""POST /predict and POST /predict/batch: read, delegate, shape."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.multipart import Part
from app.api.schemas import BatchAnswer, PredictionAnswer, error_responses
from app.api.uploads import read_picture, read_pictures
from app.errors import ImageError, InferenceFailed, UploadTooLarge
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classification, Classifier

TopK = Annotated[int | None, Query(ge=1, description="Only the k most probable labels, best first.")]
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


def predict_routes(
    catalogue: Catalogue,
    *,
    request_timeout_s: float,
    max_upload_bytes: int,
    max_batch_bytes: int,
    max_batch_pictures: int,
) -> APIRouter:
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
        classifier = catalogue.get(model)
        with catalogue.admission.admit():
            picture = await read_picture(
                request.receive,
                content_type=request.headers.get("content-type", ""),
                content_length=request.headers.get("content-length", ""),
                field="file",
                max_bytes=max_upload_bytes,
            )
            deadline = asyncio.get_running_loop().time() + request_timeout_s
            classification = await classifier.classify(picture, deadline=deadline)
        return _json(answer(classification, top_k))

    @router.post(
        "/predict/batch",
        summary="Classify many pictures",
        response_model=BatchAnswer,
        responses=error_responses(400, 404, 413, 415, 500, 503, 504),
        openapi_extra=_BATCH_BODY,
    )
    async def predict_batch(request: Request, top_k: TopK = None, model: ModelName = None) -> Response:
        """Send the pictures as multipart fields `files`. Each gets an entry; one that cannot be used fails alone."""
        classifier = catalogue.get(model)
        uploads = await read_pictures(
            request.receive,
            content_type=request.headers.get("content-type", ""),
            content_length=request.headers.get("content-length", ""),
            field="files",
            max_bytes=max_batch_bytes,
            max_pictures=max_batch_pictures,
        )
        with catalogue.admission.admit(len(uploads)):
            deadline = asyncio.get_running_loop().time() + request_timeout_s
            entries = await _classify_all(classifier, uploads, max_upload_bytes, deadline)
        predictions = [
            {"file": upload.filename, **_entry(entry, top_k)} for upload, entry in zip(uploads, entries, strict=True)
        ]
        model_reference = {"name": classifier.manifest.name, "version": classifier.manifest.version}
        return _json({"predictions": predictions, "model": model_reference})

    return router


def answer(classification: Classification, top_k: int | None) -> dict[str, Any]:
    """Return `PredictionAnswer` as a dictionary."""
    model = {"name": classification.model, "version": classification.version}
    return {**_prediction(classification, top_k), "model": model}


def _prediction(classification: Classification, top_k: int | None) -> dict[str, Any]:
    labels, probabilities = classification.labels, classification.probabilities
    values = list(probabilities)  # of NumPy's float32, which orjson writes in the fewest digits that tell them apart
    best = int(np.argmax(probabilities))
    if top_k is None:
        shown = dict(zip(labels, values, strict=True))
    else:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        shown = {labels[index]: values[index] for index in order}
    return {"label": labels[best], "probability": values[best], "probabilities": shown}


async def _classify_all(
    classifier: Classifier, uploads: Sequence[Part], max_upload_bytes: int, deadline: float
) -> list[Classification | ImageError | InferenceFailed | UploadTooLarge]:
    """Classify all pictures; what is wrong with one of them is its entry, anything else fails the request."""

    async def classify(upload: Part) -> Classification | ImageError | InferenceFailed | UploadTooLarge:
        if len(upload.data) > max_upload_bytes:
            return UploadTooLarge(f"The picture is larger than {max_upload_bytes:,} bytes. Send a smaller one.")
        try:
            return await classifier.classify(upload.data, deadline=deadline)
        except (ImageError, InferenceFailed) as exc:
            return exc

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(classify(upload)) for upload in uploads]
    return [task.result() for task in tasks]


def _entry(entry: Classification | ImageError | InferenceFailed | UploadTooLarge, top_k: int | None) -> dict[str, Any]:
    if isinstance(entry, Classification):
        return _prediction(entry, top_k)
    return {"error": str(entry), "code": entry.code}


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
