"""The outermost layer of the application: what every request gets that does not take the fast path.

Pure ASGI, around all that FastAPI does: no task, no copy of a body. It knows nothing of routes.
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
"""The route of a request that no route takes: its path is the client's choice, and would be a series of its own."""


def note_model(request: Request, model: Classifier) -> None:
    """Tell whoever notes the answer which model it is of."""
    request.state.model, request.state.version = model.name, model.version


class Entrance:
    """Gives a request its id, has it noted, and answers whatever nobody else did."""

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
        status = 0
        # HEAD asks what GET would be answered (RFC 9110, section 9.3.2); the server leaves the body out.
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
            # Starlette answers and raises again, for servers that log it. Here it is logged when it is answered.
            if not status:
                await answer_error(Request(scope), exc)(scope, receive, send_with_id)
            elif "code" not in state:  # the answer had begun: nothing is left but to break it off
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
                )


class Checked:
    """Lets a request through if the gate does. It lies inside of CORS, whose preflight requests carry no key."""

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
