"""The interface over HTTP: /v1/models/{model} and the routes below it.

Bodies are parsed here, not by FastAPI: TensorFlow Serving ignores Content-Type, and its clients send any.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from app.api.http1.fast_routes import Ask, FastRoute
from app.api.http_request import answer_request
from app.api.inference import Inference, Question
from app.api.protocols.model_routes import MODEL_PATHS, ModelRoutes, model_and_version
from app.api.protocols.tensorflow_serving import metadata
from app.api.protocols.tensorflow_serving.questions import Classify, Predict
from app.api.protocols.tensorflow_serving.schemas import (
    CLASSIFY_REQUEST,
    PREDICT_REQUEST,
    Classifications,
    ModelStatus,
    Outputs,
    Predictions,
    SignatureMetadata,
)
from app.errors import MalformedRequest, ModelNotFound

_ROOT = "/v1/models"
_VERBS = ("predict", "classify", "regress")


def tensorflow_serving_routes(inference: Inference) -> APIRouter:
    router = APIRouter(tags=["TensorFlow Serving"])
    max_bytes = inference.limits.max_batch_bytes

    async def status(_: Request, name: str, version: str | None) -> dict[str, Any]:
        if name.rpartition(":")[2] in _VERBS:
            raise HTTPException(405, headers={"Allow": "POST"})
        return metadata.status(inference.catalogue.get(name, version))

    async def signature(_: Request, name: str, version: str | None) -> dict[str, Any]:
        return metadata.metadata(inference.catalogue.get(name, version))

    async def predict(request: Request, name: str, version: str | None) -> Response:
        """Send `instances` or `inputs`: nested pixels in the network's shape, or encoded pictures as {"b64": …}."""
        return await answer_request(inference, request, Predict(inference, name, version), max_bytes=max_bytes)

    async def classify(request: Request, name: str, version: str | None) -> Response:
        """Send `examples`, each with the feature `image`: an encoded picture as {"b64": …}."""
        return await answer_request(inference, request, Classify(inference, name, version), max_bytes=max_bytes)

    async def regress(_: Request, name: str, version: str | None) -> Response:
        """Always rejected: a classifier has no signature for it."""
        model = inference.catalogue.get(name, version)
        raise MalformedRequest(f"'{model.name}' is a classifier and has nothing to regress. Use :predict or :classify.")

    routes = ModelRoutes(router, _ROOT)
    routes.add("GET", "", status, "Which version is live", ModelStatus, 404)
    routes.add("GET", "/metadata", signature, "The model's signature", SignatureMetadata, 404)
    predict_body, classify_body = _json_body(PREDICT_REQUEST), _json_body(CLASSIFY_REQUEST)
    statuses = (404, 413, 415, 422, 503, 504)
    both = Predictions | Outputs
    routes.add("POST", ":predict", predict, "Classify", both, *statuses, openapi_extra=predict_body)
    routes.add("POST", ":classify", classify, "Label", Classifications, *statuses, openapi_extra=classify_body)
    routes.add("POST", ":regress", regress, "Not for classifiers", None, 404, include_in_schema=False)
    _reject_labels(router)
    return router


def tensorflow_serving_fast_routes(inference: Inference) -> list[FastRoute]:
    def ask_by(kind: type[Predict | Classify]) -> Ask:
        def ask(names: Sequence[str], query: bytes, _: Mapping[bytes, bytes]) -> Question | None:
            return None if query else kind(inference, *model_and_version(names))

        return ask

    verbs = ((":predict", ask_by(Predict)), (":classify", ask_by(Classify)))
    return [FastRoute(f"{_ROOT}/{path}{verb}", ask) for path in MODEL_PATHS for verb, ask in verbs]


def _reject_labels(router: APIRouter) -> None:
    """Reject requests for a version by its label, and say what to do instead: versions have no labels here."""

    async def label(model: str, label: str) -> Response:
        raise ModelNotFound(
            f"'{model}' has no version '{label[:40]}': versions have no labels. Use /versions/N, or none."
        )

    for path in ("{label}", "{label}/metadata", *(f"{{label}}:{verb}" for verb in _VERBS)):
        method = "POST" if ":" in path else "GET"
        router.add_api_route(f"/v1/models/{{model}}/labels/{path}", label, methods=[method], include_in_schema=False)


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
