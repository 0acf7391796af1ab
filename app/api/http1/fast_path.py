"""Answer a plain `POST /predict` from the connection to the predictor and back, without ASGI.

For a small upload this replaces a task, ASGI's messages, and FastAPI's middleware, router, dependency solving, request
and response objects, which together take longer than a small network. The route is still there and documented, errors
come from the same table, and every request that is not plain takes it: another path or query, a body that is large,
chunked or compressed, HTTP/1.0, `Expect`, a client that does not read its answers, a page of another origin if CORS
is on.
"""

import re
from collections.abc import Iterable
from time import perf_counter

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from app.api.errors import answer_error
from app.api.guard.access import Gate
from app.api.http1.connection import Connection
from app.api.http1.head import Head
from app.api.predictor import Predictor
from app.api.server_timing import of_one
from app.serving.admission import Lease
from app.serving.classifier import Classifier

PATH = b"/predict"
_ROUTE = PATH.decode()
_MOST_BYTES = 64 * 1024
_PLAIN_QUERY = re.compile(rb"(?:model=([A-Za-z0-9._-]+)(?:&|$))?(?:top_k=([1-9][0-9]{0,8}))?")


class FastPath:
    """Opens an exchange with the predictor for each plain request. One serves all connections of a worker."""

    def __init__(self, predictor: Predictor, gate: Gate, *, cors: bool) -> None:
        self._predictor = predictor
        self._gate = gate
        self._cors = cors

    def open(self, connection: Connection, head: Head) -> "PredictExchange | None":
        """Begin to answer a request, or return None if it is not plain."""
        query, length, fields = _PLAIN_QUERY.fullmatch(head.query), head.body_length, head.fields
        if (
            query is None
            or length is None
            or length > _MOST_BYTES
            or head.method != b"POST"
            or head.is_1_0
            or head.expects_continue
            or b"content-encoding" in fields
            or (self._cors and b"origin" in fields)
            or not connection.reads_answers
        ):
            return None
        return PredictExchange(connection, head, query, self._predictor, self._gate)


class PredictExchange:
    """One request and its answer: the connection's Exchange, the batcher's Reply, and the owner of a lease."""

    __slots__ = (
        *("_began", "_connection", "_gate", "_head", "_is_over", "_lease", "_model", "_pieces", "_predictor", "_query"),
        *("_read_s", "_request_id", "prepared_s", "queued_s", "ran_s"),
    )

    def __init__(
        self, connection: Connection, head: Head, query: re.Match[bytes], predictor: Predictor, gate: Gate
    ) -> None:
        self._began = perf_counter()
        self._connection = connection
        self._head = head
        self._query = query
        self._predictor = predictor
        self._gate = gate
        self._pieces: list[bytes] = []
        self._request_id = ""
        self._model: Classifier | None = None
        self._lease: Lease | None = None
        self._is_over = False
        self.queued_s = self.prepared_s = self.ran_s = self._read_s = 0.0

    # The connection's side

    def receive(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def begin(self) -> None:
        head, predictor, gate, pieces = self._head, self._predictor, self._gate, self._pieces
        fields = head.fields
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._request_id = gate.request_id(head.headers)
        name = self._query[1]
        try:
            gate.check(_ROUTE, head.headers)
            self._read_s = perf_counter() - self._began
            self._model = predictor.model(None if name is None else name.decode("ascii"))
            self._lease = predictor.begin(
                self._model,
                body,
                self,
                content_type=fields.get(b"content-type", b"").decode("latin-1"),
                asked_timeout=fields.get(b"x-request-timeout", b"").decode("latin-1"),
                read_s=self._read_s,
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client gets the one error shape
            self.set_exception(exc)

    def lose_body(self) -> None:
        self._request_id = self._gate.request_id(self._head.headers)
        self.set_exception(ClientDisconnect())

    def cancel(self) -> None:
        self._end()

    # The batcher's side

    def done(self) -> bool:
        return self._is_over or self._connection.exchange is not self

    def set_result(self, row: NDArray[np.float32]) -> None:
        model, top_k = self._model, self._query[2]
        if model is not None:
            body = self._predictor.answer(model, row, None if top_k is None else int(top_k))
            headers = (
                (b"server-timing", of_one(self, self._read_s)),
                (b"content-length", b"%d" % len(body)),
                (b"content-type", b"application/json"),
                (b"x-request-id", self._request_id.encode("ascii")),
            )
            self._answer(200, headers, body, None)

    def set_exception(self, error: Exception) -> None:
        state = {"request_id": self._request_id}
        response = answer_error(Request({"type": "http", "headers": (), "state": state}), error)
        self._answer(response.status_code, response.raw_headers, bytes(response.body), state["code"])

    def _answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, code: str | None) -> None:
        if self.done():
            return
        self._end()
        model = self._model
        # Counted before it leaves: a worker that is killed in between may have counted an answer that nobody got, but
        # nobody got one that is not counted.
        self._gate.note(
            request_id=self._request_id,
            method="POST",
            path=_ROUTE,
            route=_ROUTE,
            model="" if model is None else model.name,
            version="" if model is None else model.version,
            status=status,
            code=code,
            seconds=perf_counter() - self._began,
        )
        self._connection.answer(status, headers, body)

    def _end(self) -> None:
        self._is_over = True
        if self._lease is not None and self._model is not None:
            self._predictor.end(self._model, self, self._lease)
            self._lease = None
