"""The one table from errors to status codes, and the one JSON shape of all error responses."""

from collections.abc import Mapping
from uuid import uuid4

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app import errors

REQUEST_ID_HEADER = "X-Request-ID"
RETRY_AFTER_S = 1

STATUS: dict[type[errors.ImageclassError], int] = {
    errors.ImageTooLarge: 413,
    errors.UnsupportedFormat: 415,
    errors.UndecodableImage: 422,
    errors.UnsupportedLayout: 422,
    errors.MalformedRequest: 400,
    errors.UploadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.HeadersTooLarge: 431,
    errors.UnsupportedHttpVersion: 505,
    errors.UnsupportedTransferCoding: 501,
    errors.ReceiveTimeout: 408,
    errors.Unauthorized: 401,
    errors.UnknownHost: 400,
    errors.ModelNotFound: 404,
    errors.ModelNotNamed: 400,
    errors.ModelControlOff: 403,
    errors.ModelControlRefused: 400,
    errors.ExplanationsOff: 403,
    errors.Overloaded: 503,
    errors.ShuttingDown: 503,
    errors.DeadlineExceeded: 504,
    errors.InferenceFailed: 500,
}

_HTTP_ERRORS = {
    404: ("not_found", "There is nothing at this path. See /docs for what there is."),
    405: ("method_not_allowed", "This path does not take this method. See /docs for the one it takes."),
}

_log = structlog.stdlib.get_logger(__name__)


def status_of(error: errors.ImageclassError) -> int:
    """Return the status code of an error's class, or of its nearest base class in the table."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def request_id_of(request: Request) -> str:
    """Return the request's id. A request that did not pass the gate gets a new one."""
    state = request.scope.setdefault("state", {})
    return str(state.setdefault("request_id", uuid4().hex))


def error_body(message: str, code: str, request_id: str) -> bytes:
    """Return `ErrorBody` as JSON."""
    return orjson.dumps({"error": message, "code": code, "request_id": request_id})


def error_response(
    request: Request, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    request_id = request_id_of(request)
    request.scope["state"]["code"] = code  # for the metrics and the log
    body = error_body(message, code, request_id)
    all_headers = {**(headers or {}), REQUEST_ID_HEADER: request_id}
    if status == 503:
        all_headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Response(body, status_code=status, headers=all_headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    for kind in (errors.ImageclassError, RequestValidationError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _handle)


def log_failure(request: Request, error: errors.ImageclassError) -> None:
    """Log a failure of a request, even if its answer also has results of other pictures."""
    _log.error("request failed", request_id=request_id_of(request), code=error.code, exc_info=error)


async def _handle(request: Request, error: Exception) -> Response:
    return answer_error(request, error)


def answer_error(request: Request, error: Exception) -> Response:
    """Return the response to an error, and log errors that only the operator can fix."""
    match error:
        case errors.ImageclassError():
            status = status_of(error)
            headers = {}
            if isinstance(error, errors.Overloaded):
                headers["Retry-After"] = str(error.retry_after_s)
            elif isinstance(error, errors.UnsupportedMediaType) and error.accept_encoding:
                headers["Accept-Encoding"] = error.accept_encoding
            elif status == 401:
                headers["WWW-Authenticate"] = "Bearer"
            message = str(error)
            if isinstance(error, errors.ModelNotNamed):
                message += " Name one with ?model=, or set IMAGECLASS_MODEL."
            response = error_response(request, status, error.code, message, headers)
            if status == 500:
                log_failure(request, error)
            return response
        case RequestValidationError():
            first = error.errors()[0]
            where = " ".join(str(part) for part in first["loc"])
            return error_response(request, 400, errors.MalformedRequest.code, f"{where}: {first['msg']}.")
        case HTTPException():
            code, message = _HTTP_ERRORS.get(error.status_code, (errors.MalformedRequest.code, str(error.detail)))
            headers = dict(error.headers or {})
            if headers.get("Allow") == "GET":
                headers["Allow"] = "GET, HEAD"
            return error_response(request, error.status_code, code, message, headers)
        case ClientDisconnect():
            message = "The connection ended before the request was complete. Send all of it."
            return error_response(request, 400, "client_disconnected", message)
        case _:
            message = "Something failed inside the service. Its log says what, under this request_id."
            response = error_response(request, 500, errors.ImageclassError.code, message)
            _log.error("defect", request_id=response.headers[REQUEST_ID_HEADER], exc_info=error)
            return response
