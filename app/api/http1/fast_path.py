"""Answer plain requests from the connection to the model and back, without ASGI.

For a small upload this replaces a task, ASGI's messages, and FastAPI's middleware, router, dependency solving, request
and response objects, which together take longer than a small network. The routes still exist and are documented. Errors
come from the same table, and every request that is not plain takes the routes: large, chunked or compressed bodies,
HTTP/1.0, `Expect`, a client that does not read its answers, a page of another origin if CORS is on, and requests for
which the route's `ask` returns None.
"""

from time import perf_counter

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api.errors import answer_error, log_failure
from app.api.guard.access import Gate
from app.api.http1.connection import Connection
from app.api.http1.fast_routes import FastRoutes, MatchedPath
from app.api.http1.head import Head
from app.api.inference import Call, Inference, Question, asked_seconds

_MOST_BYTES = 64 * 1024


class FastPath:
    """Opens an exchange for each plain request to a fast route. One serves all connections of a worker."""

    def __init__(self, inference: Inference, gate: Gate, routes: FastRoutes, *, cors: bool) -> None:
        self._inference = inference
        self._gate = gate
        self._find = routes.find
        self._cors = cors
        self._most_bytes = min(_MOST_BYTES, inference.limits.max_batch_bytes)

    def open(self, connection: Connection, head: Head) -> "FastExchange | None":
        """Return an exchange for the request, or None if it is not plain."""
        length, fields = head.body_length, head.fields
        if (
            length is None
            or length > self._most_bytes
            or head.method != b"POST"
            or head.is_1_0
            or head.expects_continue
            or b"content-encoding" in fields
            or (self._cors and b"origin" in fields)
            or not connection.reads_answers
        ):
            return None
        found = self._find(head.path)
        if found is None:
            return None
        path, ask = found
        question = ask(path.names, head.query, fields)
        return None if question is None else FastExchange(connection, head, question, path, self._inference, self._gate)


class FastExchange(Call):
    """One request and its answer. It is the connection's Exchange, a Call, and the owner of its lease, all in one."""

    __slots__ = ("_began", "_connection", "_gate", "_head", "_inference", "_path", "_pieces", "_request_id")

    def __init__(
        self,
        connection: Connection,
        head: Head,
        question: Question,
        path: MatchedPath,
        inference: Inference,
        gate: Gate,
    ) -> None:
        super().__init__(question)
        self._began = perf_counter()
        self._connection = connection
        self._head = head
        self._path = path
        self._inference = inference
        self._gate = gate
        self._pieces: list[bytes] = []
        self._request_id = ""

    # Called by the connection

    def receive(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def begin(self) -> None:
        headers, pieces = self._head.headers, self._pieces
        timeout = self._head.fields.get(b"x-request-timeout")
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._request_id = self._gate.request_id(headers)
        self.trace = self._gate.trace(self._path.path, headers, self._began)
        try:
            self._gate.check(self._path.path, headers)
            self.question.check_head()
            self.arrived(perf_counter() - self._began)
            timeout_s = None if timeout is None else asked_seconds(timeout.decode("latin-1"))
            self._inference.begin(self, body, self, timeout_s, size=len(body))
        except Exception as exc:  # noqa: BLE001 - the client gets any error in the same shape
            self._fail(exc)

    def lose_body(self) -> None:
        self._request_id = self._gate.request_id(self._head.headers)
        self._fail(ClientDisconnect())

    def cancel(self) -> None:
        self.end()

    # Called by the batcher and by admission

    def done(self) -> bool:
        return self.is_over or self._connection.exchange is not self

    def finish(self) -> None:
        if self.model is None:
            return
        try:
            body, media_type, headers, failures = self.write(self.model)
        except Exception as exc:  # noqa: BLE001 - the same
            self._fail(exc)
            return
        more = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers) if headers else ""
        fields = b"server-timing: %b\r\n%bcontent-length: %d\r\ncontent-type: %b\r\nx-request-id: %b\r\n" % (
            self.server_timing(),
            more.encode("latin-1"),
            len(body),
            media_type.encode("ascii"),
            self._request_id.encode("ascii"),
        )
        for failure in failures:
            log_failure(self._request(), failure)
        self._answer(200, fields, body, None)

    # The answer

    def _fail(self, error: Exception) -> None:
        request = self._request()
        response = answer_error(request, error)
        fields = b"".join([b"%b: %b\r\n" % header for header in response.raw_headers])
        self._answer(response.status_code, fields, bytes(response.body), request.scope["state"]["code"])

    def _request(self) -> Request:
        """Return the request in the form that error answers and the log need."""
        return Request({"type": "http", "headers": (), "state": {"request_id": self._request_id}})

    def _answer(self, status: int, fields: bytes, body: bytes, code: str | None) -> None:
        if self.done():
            return
        self.end()
        model = self.model
        # Counted before it is sent: if the worker is killed in between, the count may include an answer that was not
        # sent, but never miss one that was.
        self._gate.note(
            request_id=self._request_id,
            method="POST",
            path=self._path.path,
            route=self._path.template,
            model="" if model is None else model.name,
            version="" if model is None else model.version,
            status=status,
            code=code,
            seconds=perf_counter() - self._began,
            trace=self.trace,
        )
        self._connection.answer_lines(status, fields, body)
