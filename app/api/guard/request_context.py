"""The outermost ASGI middleware of the application, for every request that does not take the fast path.

It is pure ASGI around all of FastAPI: no extra task, no copy of a body. It knows nothing of routes.
"""

import time
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import REQUEST_ID_HEADER, answer_error
from app.api.guard.access import Gate
from app.errors import ImageclassError
from app.serving.classifier import Classifier

_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
UNMATCHED = "unmatched"
"""The route label of requests without a route. Their paths would make unbounded metric series."""


def note_model(request: Request, model: Classifier) -> None:
    """Record the request's model for the metrics and the log."""
    request.state.model, request.state.version = model.name, model.version


class Entrance:
    """Gives a request its id and its trace, counts and logs its answer, and answers unhandled exceptions."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        request_id = state["request_id"] = self._gate.request_id(scope["headers"])
        trace = state["trace"] = self._gate.trace(scope["path"], scope["headers"], began)
        status = 0
        # HEAD gets the answer of GET (RFC 9110, section 9.3.2); the server leaves the body out.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                if not any(name == _REQUEST_ID for name, _ in headers):
                    headers.append((_REQUEST_ID, request_id.encode("ascii")))
            await send(message)

        try:
            if scope["method"] == "OPTIONS" and scope["path"] == "*":
                await Response(headers={"Allow": "GET, HEAD, OPTIONS, POST"})(scope, receive, send_with_id)
            else:
                await self._app(inner, receive, send_with_id)
        except Exception as exc:
            # Starlette answers, then raises again for servers that log it. Here it is logged when answered.
            if not status:
                await answer_error(Request(scope), exc)(scope, receive, send_with_id)
            elif "code" not in state:  # the answer has begun: it can only be aborted
                answer_error(Request(scope), exc)
                raise
        finally:
            if status:
                self._gate.note(
                    request_id=request_id,
                    method=scope["method"],
                    path=scope["path"],
                    route=getattr(inner.get("route"), "path", UNMATCHED),
                    model=state.get("model", ""),
                    version=state.get("version", ""),
                    status=status,
                    code=state.get("code"),
                    seconds=time.perf_counter() - began,
                    trace=trace,
                )


class Checked:
    """Checks access by the gate, after the CORS middleware, because preflight requests carry no key."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._gate.check(scope["path"], scope["headers"])
            except ImageclassError as exc:
                await answer_error(Request(scope), exc)(scope, receive, send)
                return
        await self._app(scope, receive, send)
