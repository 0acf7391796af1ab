"""The short way into POST /predict: from uvicorn's HTTP parser to the predictor and back, without ASGI.

For a small upload it replaces uvicorn's task, its messages and their checks, and FastAPI's middleware stack, router,
dependency solving and request and response objects, which together take longer than a small network. The route is still
there and documented, errors come from the same table, and every request that is not the plain case takes the long way:
another path, a large body, HTTP/1.0, `Expect`, pipelining, a client that does not read its answers.
"""

import re
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.errors import answer_error
from app.api.predictor import Predictor
from app.serving.classifier import Classifier

_PLAIN_URL = re.compile(rb"/predict(?:\?(?:model=([A-Za-z0-9._-]+)(?:&|$))?(?:top_k=([1-9][0-9]{0,8}))?)?")


class FastPathProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, which hands plain `POST /predict` requests straight to a predictor.

    It finds the predictor in the state that the application's lifespan yields.
    """

    _exchange: "_Exchange | None" = None  # the last one begun; a pipelined request may have taken its place as `cycle`

    def on_headers_complete(self) -> None:
        if self.url.startswith(b"/predict") and (plain := _PLAIN_URL.fullmatch(self.url)):
            exchange = self._open_exchange(plain)
            if exchange is not None:
                self.cycle = self._exchange = exchange  # type: ignore[assignment]
                return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        cycle: Any = self.cycle
        if type(cycle) is _Exchange:
            cycle.begin()
        else:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            self._exchange.cancel()
        super().connection_lost(exc)

    def _open_exchange(self, plain: re.Match[bytes]) -> "_Exchange | None":
        parser, cycle = self.parser, cast("_Exchange | None", self.cycle)
        if (
            parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
            or self.expect_100_continue
            or self.flow.write_paused
            or (cycle is not None and not cycle.response_complete)
        ):
            return None
        content_type = b""
        length = HIGH_WATER_LIMIT + 1  # a chunked body may be of any
        for name, value in self.headers:
            if name == b"content-type" and not content_type:  # of several, the first counts, as in FastAPI
                content_type = value
            elif name == b"content-length":
                length = int(value)
        if length > HIGH_WATER_LIMIT:
            return None
        return _Exchange(self, content_type, plain, keep_alive=parser.should_keep_alive())


class _Exchange:
    """One request and its answer: the part of uvicorn's cycle that its protocol looks at, and the batcher's Reply."""

    __slots__ = (
        *("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete"),
        *("_classifier", "_content_type", "_plain", "_predictor", "_protocol", "_scope"),
    )

    def __init__(
        self, protocol: FastPathProtocol, content_type: bytes, plain: re.Match[bytes], *, keep_alive: bool
    ) -> None:
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NOBODY_WAITS
        self._protocol = protocol
        self._scope = cast("Scope", protocol.scope)
        self._content_type = content_type
        self._plain = plain
        self._predictor: Predictor = protocol.app_state["predictor"]
        self._classifier: Classifier | None = None  # while the predictor works for it

    def begin(self) -> None:
        """Hand the request, whose body is whole now, to the predictor."""
        self.more_body = False
        model = self._plain[1]
        try:
            self._classifier = self._predictor.begin(
                bytes(self.body),
                self,
                content_type=self._content_type.decode("latin-1"),
                model=None if model is None else model.decode("ascii"),
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets the one error shape
            # In a turn of its own, as every other answer: the next request may be in the data that is being parsed.
            self._protocol.loop.call_soon(self.set_exception, exc)

    def cancel(self) -> None:
        """Give the place in the queue back: the client is gone."""
        if not self.done():
            self.disconnected = True
            self._end()

    def done(self) -> bool:
        return self.response_complete or self.disconnected

    def set_result(self, row: NDArray[np.float32]) -> None:
        classifier, top_k = self._classifier, self._plain[2]
        if classifier is not None:
            body = self._predictor.answer(classifier, row, None if top_k is None else int(top_k))
            headers = ((b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"))
            self._respond(200, headers, body)

    def set_exception(self, error: Exception) -> None:
        response = answer_error(Request(self._scope), error)
        self._respond(response.status_code, response.raw_headers, bytes(response.body))

    def _respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        if self.done():
            return
        self.response_complete = True
        self._end()
        protocol = self._protocol
        if protocol.transport.is_closing():
            return
        lines = [STATUS_LINE[status]]
        for name, value in (*protocol.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        lines.append(body)
        protocol.transport.write(b"".join(lines))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def _end(self) -> None:
        if self._classifier is not None:
            self._predictor.end(self._classifier, self)


class _NobodyWaits:
    """Stands for the event that uvicorn sets for a task that waits for the body."""

    def set(self) -> None: ...


_NOBODY_WAITS = _NobodyWaits()
