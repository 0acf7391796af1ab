"""The short way into POST /predict: from uvicorn's HTTP parser to the predictor and back, without ASGI.

For a small upload it replaces uvicorn's task, its messages and their checks, and FastAPI's middleware stack, router,
dependency solving and request and response objects, which together take longer than a small network. The route is still
there and documented, errors come from the same table, and every request that is not the plain case takes the long way:
another path, a large body, HTTP/1.0, `Expect`, pipelining, a client that does not read its answers, a page of another
origin where CORS is on.
"""

import re
from collections.abc import Iterable
from time import perf_counter
from typing import Any, cast

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from app.api.errors import answer_error
from app.api.predictor import Predictor
from app.api.server_timing import of_one
from app.api.shedding import NOBODY_WAITS, SheddingProtocol
from app.serving.classifier import Classifier

_PATH = "/predict"
_PLAIN_URL = re.compile(rb"/predict(?:\?(?:model=([A-Za-z0-9._-]+)(?:&|$))?(?:top_k=([1-9][0-9]{0,8}))?)?")


class FastPathProtocol(SheddingProtocol):
    """uvicorn's HTTP/1.1 connection, which hands plain `POST /predict` requests straight to a predictor.

    It finds the predictor in the state that the application's lifespan yields.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The last one begun; a pipelined request may have taken its place as `cycle`.
        self._exchange: _Exchange | None = None

    def open_admitted_cycle(self) -> None:
        if self.url.startswith(b"/predict") and (plain := _PLAIN_URL.fullmatch(self.url)):
            exchange = self._open_exchange(plain)
            if exchange is not None:
                self.cycle = self._exchange = exchange  # type: ignore[assignment]
                return
        super().open_admitted_cycle()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle: Any = self.cycle
        if type(cycle) is _Exchange:
            cycle.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            self._exchange.cancel()
        super().connection_lost(exc)

    def _open_exchange(self, plain: re.Match[bytes]) -> "_Exchange | None":
        if not (self.is_plain_post and self.may_answer_now):
            return None
        content_type = timeout = b""
        length = HIGH_WATER_LIMIT + 1  # a chunked body may be of any
        for name, value in self.headers:
            if name == b"content-type":
                content_type = content_type or value  # of several, the first counts, as in FastAPI
            elif name == b"content-length":
                length = int(value)
            elif name == b"x-request-timeout":
                timeout = timeout or value
            elif name == b"origin" and self.cors:
                return None
        if length > HIGH_WATER_LIMIT:
            return None
        return _Exchange(self, content_type, timeout, plain, keep_alive=self.parser.should_keep_alive())


class _Exchange:
    """One request and its answer: the part of uvicorn's cycle that its protocol looks at, and the batcher's Reply."""

    response_started = False  # it is sent as a whole
    __slots__ = (
        *("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete"),
        *("_began", "_content_type", "_held", "_model", "_plain", "_predictor", "_protocol", "_request_id", "_scope"),
        *("_read_s", "_timeout", "prepared_s", "queued_s", "ran_s"),
    )

    def __init__(
        self,
        protocol: FastPathProtocol,
        content_type: bytes,
        timeout: bytes,
        plain: re.Match[bytes],
        *,
        keep_alive: bool,
    ) -> None:
        self.body = bytearray()
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = NOBODY_WAITS
        self.queued_s = self.prepared_s = self.ran_s = self._read_s = 0.0
        self._began = perf_counter()
        self._protocol = protocol
        self._scope = cast("Scope", protocol.scope)
        self._content_type = content_type
        self._timeout = timeout
        self._plain = plain
        self._predictor: Predictor = protocol.app_state["predictor"]
        self._request_id = ""
        self._model: Classifier | None = None
        self._held: int | None = None  # bytes that the predictor holds, while it works for this exchange

    def begin(self) -> None:
        """Hand the request, whose body is whole now, to the predictor."""
        if self.done():
            return
        protocol, predictor, body = self._protocol, self._predictor, bytes(self.body)
        headers = protocol.headers
        self._request_id = protocol.gate.request_id(headers)
        name = self._plain[1]
        try:
            protocol.gate.check(_PATH, headers)
            self._read_s = perf_counter() - self._began
            self._model = predictor.model(None if name is None else name.decode("ascii"))
            predictor.begin(
                self._model,
                body,
                self,
                content_type=self._content_type.decode("latin-1"),
                asked_timeout=self._timeout.decode("latin-1"),
                read_s=self._read_s,
            )
            self._held = len(body)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets the one error shape
            # In a turn of its own, as every other answer: the next request may be in the data that is being parsed.
            protocol.loop.call_soon(self.set_exception, exc)

    def cancel(self) -> None:
        """Give the place in the queue back: the client is gone."""
        if not self.done():
            self.disconnected = True
            self._end()

    def done(self) -> bool:
        return self.response_complete or self.disconnected

    def set_result(self, row: NDArray[np.float32]) -> None:
        model, top_k = self._model, self._plain[2]
        if model is not None:
            body = self._predictor.answer(model, row, None if top_k is None else int(top_k))
            headers = (
                (b"server-timing", of_one(self, self._read_s)),
                (b"content-length", b"%d" % len(body)),
                (b"content-type", b"application/json"),
                (b"x-request-id", self._request_id.encode("ascii")),
            )
            self._respond(200, headers, body, None)

    def set_exception(self, error: Exception) -> None:
        state = self._scope["state"]
        state["request_id"] = self._request_id
        response = answer_error(Request(self._scope), error)
        self._respond(response.status_code, response.raw_headers, bytes(response.body), state["code"])

    def _respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, code: str | None) -> None:
        if self.done():
            return
        self.response_complete = True
        self._end()
        protocol, model = self._protocol, self._model
        # Counted before it leaves: a worker that is killed in between may have counted an answer that nobody got, but
        # nobody got one that is not counted.
        protocol.gate.note(
            request_id=self._request_id,
            method="POST",
            path=_PATH,
            route=_PATH,
            model="" if model is None else model.name,
            version="" if model is None else model.version,
            status=status,
            code=code,
            seconds=perf_counter() - self._began,
        )
        if not protocol.transport.is_closing():
            protocol.write_answer(status, headers, body, keep_alive=self.keep_alive)
            if not self.keep_alive:
                protocol.transport.close()
            protocol.on_response_complete()

    def _end(self) -> None:
        if self._held is not None and self._model is not None:
            self._predictor.end(self._model, self, self._held)
            self._held = None
