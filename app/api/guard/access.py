"""Authorize requests, and count, log and trace answers. This module knows nothing of ASGI or of routes.

Both FastAPI (`app.api.guard.request_context`) and the fast path call it. For an answered request, all of it costs one
to two microseconds.
"""

import itertools
import secrets
from dataclasses import dataclass
from typing import Literal

import structlog

from app import pages
from app.api.guard.hosts import AllowedHosts
from app.api.guard.keys import ApiKeys, RawHeaders
from app.api.guard.request_log import RejectionLog
from app.metrics import Counter, Histogram, Metrics, Summary
from app.tracing.trace import Trace, Tracer

Access = Literal["open", "key", "off"]

HEALTH_PATHS = ("/health", "/health/ready", "/health/live", "/v2/health/ready", "/v2/health/live")
METRICS_PATHS = ("/metrics",)
DOCS_PATHS = ("/docs", "/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/openapi.json")
PAGE_PATHS = ("/", "/page/service.json", *(f"/page/{name}" for name in pages.MEDIA_TYPES if name != pages.INDEX))
"""The paths of the page.

The samples are not among them: they are test pictures, and need the same access as the models.
"""

_UNTRACED = frozenset(HEALTH_PATHS + METRICS_PATHS)
"""Probes and scrapes ask for these every few seconds."""

RPC = "RPC"
"""The method of calls over gRPC, as it is logged."""

_MAX_REQUEST_ID_LENGTH = 128
_MOST_OF_A_PATH = 256
_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counters of one kind of answer."""

    requests: Counter
    seconds: Histogram
    of_version: Summary | None
    errors: Counter | None


class Gate:
    """A worker's access checks. /health and the paths set as open need no key and accept any host name."""

    def __init__(
        self,
        *,
        keys: ApiKeys | None,
        allowed_hosts: AllowedHosts | None,
        metrics_access: Access,
        docs_access: Access,
        page_access: Access,
        metrics: Metrics,
        access_log: bool,
        tracer: Tracer | None = None,
    ) -> None:
        self._keys = keys
        self._allowed_hosts = allowed_hosts
        self.guarded = keys is not None or allowed_hosts is not None
        """Whether `check` may reject any request."""
        self.open_paths = frozenset(
            HEALTH_PATHS
            + (METRICS_PATHS if metrics_access == "open" else ())
            + (DOCS_PATHS if docs_access == "open" else ())
            + (PAGE_PATHS if page_access == "open" else ())
        )
        self._metrics = metrics
        self._access_log = access_log
        self._tracer = tracer
        self._rejections = RejectionLog()
        self._counts: dict[tuple[str, str, str, int, str | None], _Counts] = {}
        self._prefix = secrets.token_hex(8) + "-"
        self._numbers = itertools.count(1)

    def check(self, path: str, headers: RawHeaders) -> None:
        """Raise Unauthorized or UnknownHost if the request is not allowed."""
        if not self.guarded or path in self.open_paths:
            return
        if self._allowed_hosts is not None:
            self._allowed_hosts.check(headers)
        self.check_key(headers)

    def check_key(self, headers: RawHeaders) -> None:
        """Raise Unauthorized if a key is required and missing or wrong."""
        if self._keys is not None:
            self._keys.check(headers)

    def request_id(self, headers: RawHeaders) -> str:
        """Return the caller's X-Request-ID if it is printable ASCII and short, else a new one."""
        for name, value in headers:
            if name == b"x-request-id":
                if 0 < len(value) <= _MAX_REQUEST_ID_LENGTH and value.isascii():
                    given = value.decode("ascii")
                    if given.isprintable():
                        return given
                break
        return f"{self._prefix}{next(self._numbers):x}"

    def trace(self, path: str, headers: RawHeaders, began: float) -> Trace | None:
        """Return the trace of a request that began at this time of `perf_counter`; None if it is not traced."""
        if self._tracer is None or path in _UNTRACED:
            return None
        return self._tracer.trace(headers, began)

    def note(
        self,
        *,
        request_id: str,
        method: str,
        path: str,
        route: str,
        model: str,
        version: str,
        status: int,
        code: str | None,
        seconds: float,
        trace: Trace | None = None,
    ) -> None:
        """Count an answer, end its trace, and log it if it rejects the request or if every request is logged.

        `route` is the template, which bounds the number of series; `code` is that of an error. A 500 is logged, with
        its reason, by the code that answers it.
        """
        key = (route, model, version, status, code)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = self._open_counts(route, model, version, status, code)
        counts.requests.add()
        counts.seconds.observe(seconds)
        if counts.of_version is not None:
            counts.of_version.observe(seconds)
        if code is not None:
            if counts.errors is not None:
                counts.errors.add()
            if status != 500:
                self._rejections.note(request_id=request_id, method=method, path=path, status=status, code=code)
        if trace is not None:
            _end_trace(
                trace,
                request_id=request_id,
                method=method,
                path=path,
                route=route,
                model=model,
                version=version,
                status=status,
                code=code,
            )
        if self._access_log:
            _log.info(
                "request",
                request_id=request_id,
                method=method,
                path=path,
                status=status,
                code=code,
                model=model,
                version=version,
                seconds=round(seconds, 6),
            )

    def close(self) -> None:
        """Write the log lines that are still queued."""
        self._rejections.flush()

    def _open_counts(self, route: str, model: str, version: str, status: int, code: str | None) -> _Counts:
        return _Counts(
            requests=self._metrics.request(route, model, version, str(status)),
            seconds=self._metrics.stage(model, "total"),
            of_version=self._metrics.version_seconds(model, version, "failure" if code else "success")
            if model
            else None,
            errors=None if code is None else self._metrics.error(route, code),
        )


def _end_trace(
    trace: Trace,
    *,
    request_id: str,
    method: str,
    path: str,
    route: str,
    model: str,
    version: str,
    status: int,
    code: str | None,
) -> None:
    """End a trace with the facts about the answer, under OpenTelemetry's names and a few of our own."""
    attributes: dict[str, str | int] = {"imageclass.request_id": request_id}
    if method == RPC:
        name = route[1:]
        attributes |= {"rpc.system.name": "grpc", "rpc.method": name}
    else:
        name = f"{method} {route}"
        attributes |= {
            "http.request.method": method,
            "http.route": route,
            "url.path": path[:_MOST_OF_A_PATH],
            "http.response.status_code": status,
        }
    if model:
        attributes |= {"imageclass.model": model, "imageclass.version": version}
    if code is not None:
        attributes["error.type"] = code
    trace.end(name, attributes, has_failed=status >= 500)
