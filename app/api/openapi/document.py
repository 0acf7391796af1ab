"""Correct FastAPI's OpenAPI document: add the answers that routes can give, and drop those that none gives."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.guard.access import HEALTH_PATHS
from app.api.openapi.examples import REQUEST_ID, REQUEST_TIMEOUT_S
from app.api.openapi.schemas import ErrorBody, error_responses
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier

_ANYWHERE = (400, 408, 431, 500)
"""Invalid HTTP or an unknown host; a request that arrives too slowly; too long headers; a defect."""

_GUARDED = (401,)

_REQUEST_ID = {"description": "The request's own X-Request-ID, or one made for it.", "schema": {"type": "string"}}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}}},
    "415": {
        "Accept-Encoding": {
            "description": "The content codings to send instead, if the body's is not supported.",
            "schema": {"type": "string"},
        }
    },
    "503": {
        "Retry-After": {
            "description": "Seconds after which to try again.",
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}
_SERVER_TIMING = {
    "description": "Milliseconds: read, decode of all pictures, and the longest queue and infer of any.",
    "schema": {"type": "string"},
    "example": "read;dur=0.041, decode;dur=0.029, queue;dur=0.120, infer;dur=0.311",
}
_REQUEST_ID_PARAMETER = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "description": "Returned with the answer, and written to the log; printable ASCII, at most 128 characters.",
    "schema": {"type": "string"},
    "example": REQUEST_ID,
}
_REQUEST_TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds that the client waits for an answer; at most what the service allows.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "example": REQUEST_TIMEOUT_S,
}


def install_openapi(app: FastAPI, catalogue: Catalogue) -> None:
    """Make `app.openapi` return the corrected document, with a model of the catalogue in its examples."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            _drop_validation_errors(document)
            schemas = document["components"]["schemas"]
            schemas[ErrorBody.__name__] = ErrorBody.model_json_schema()
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _complete(operation, open_to_all=path in HEALTH_PATHS)
                    _name_model(operation["parameters"], catalogue.models[0])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to replace it


def _complete(operation: dict[str, Any], *, open_to_all: bool) -> None:
    """Add the answers that every route can give, and the headers of every answer."""
    responses = operation["responses"]
    for status, answer in error_responses(*_ANYWHERE, *(() if open_to_all else _GUARDED)).items():
        responses.setdefault(str(status), answer)
    for status, answer in responses.items():
        answer["headers"] = {**answer.get("headers", {}), "X-Request-ID": _REQUEST_ID, **_HEADERS.get(status, {})}
    operation["responses"] = dict(sorted(responses.items()))
    parameters = operation.setdefault("parameters", [])
    parameters.append(_REQUEST_ID_PARAMETER)
    if "504" in responses:  # it classifies
        responses["200"]["headers"]["Server-Timing"] = _SERVER_TIMING
        parameters.append(_REQUEST_TIMEOUT_PARAMETER)


def _name_model(parameters: list[dict[str, Any]], model: Classifier) -> None:
    examples = {"model": model.name, "name": model.name, "version": model.version}
    for parameter in parameters:
        if parameter["name"] in examples:
            parameter["example"] = examples[parameter["name"]]


def _drop_validation_errors(document: dict[str, Any]) -> None:
    """Drop the 422 that FastAPI adds to routes with parameters: this service answers 400 instead."""
    for path in document["paths"].values():
        for operation in path.values():
            answer = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(answer):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document.get("components", {}).get("schemas", {}).pop(name, None)
