"""Ask a running service from Python. It knows the HTTP interface and nothing of models or pictures."""

import time
from types import TracebackType
from typing import Any, Self

import httpx

from app.errors import ServiceError

_TRIES = 4


class ServiceClient:
    """A connection pool to one service, safe to share between threads."""

    def __init__(self, url: str, *, timeout_s: float = 30.0, max_connections: int = 16) -> None:
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        self._http = httpx.Client(base_url=url, timeout=timeout_s, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def predict(
        self, data: bytes, *, filename: str = "picture", model: str | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """Return the answer of POST /predict to one encoded picture.

        Waits and tries again where the service says it is overloaded. Raises ServiceError with the service's own
        sentence, or saying that it cannot be reached.
        """
        params = {name: value for name, value in (("model", model), ("top_k", top_k)) if value is not None}
        for _ in range(_TRIES):
            response = self._send("POST", "/predict", params=params, files={"file": (filename, data)})
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(float(response.headers.get("Retry-After", 1)))
        return _answer(response)

    def model(self, name: str) -> dict[str, Any]:
        """Return the answer of GET /models/{name}."""
        return _answer(self._send("GET", f"/models/{name}"))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ServiceError(f"{self._http.base_url} does not answer: {exc}. Is the service running there?") from exc


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceError(f"{response.url} answered {response.status_code} without JSON. Is it an imageclass service?")
    if response.is_error:
        raise ServiceError(str(body.get("error", f"{response.url} answered {response.status_code}.")))
    return body
