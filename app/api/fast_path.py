"""The short way into POST /predict: from uvicorn to the predictor and back without FastAPI's machinery.

It goes round the middleware stack, the router, dependency solving and the request and response objects, which together
take longer than a small network. The route is still there and documented, errors come from the same table, and every
request that is not the plain case takes the long way.
"""

import re
from typing import Any

from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from app.api.errors import answer_error
from app.api.predictor import Predictor

_PLAIN_QUERY = re.compile(rb"(?:model=([A-Za-z0-9._-]+)(?:&|$))?(?:top_k=([1-9][0-9]{0,8}))?")


class FastPathApp(FastAPI):
    """A FastAPI application that hands plain `POST /predict` requests straight to a predictor."""

    def __init__(self, predictor: Predictor, **options: Any) -> None:
        super().__init__(**options)
        self._predictor = predictor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST":
            query = _PLAIN_QUERY.fullmatch(scope["query_string"])
            if query is not None:
                await self._predict(scope, receive, send, query)
                return
        await super().__call__(scope, receive, send)

    async def _predict(self, scope: Scope, receive: Receive, send: Send, query: re.Match[bytes]) -> None:
        content_type = content_length = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                content_length = value
        model, top_k = query.groups()
        try:
            body = await self._predictor.predict(
                receive,
                content_type=content_type.decode("latin-1"),
                content_length=content_length.decode("latin-1"),
                model=None if model is None else model.decode("ascii"),
                top_k=None if top_k is None else int(top_k),
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets the one error shape
            await answer_error(Request(scope), exc)(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
