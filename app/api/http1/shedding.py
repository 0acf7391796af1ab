"""Reject requests to fast routes under overload as cheaply as possible, to leave the CPU to accepted requests.

A plain request to `/predict` that arrives in one piece is recognised by one regular expression, which matches nothing
that `app.api.http1.head` would read differently or reject. Any other request whose body has a known length is rejected
after its head, and the body is read and dropped; a request with a chunked body goes to the application. This module
knows nothing of pictures or models.
"""

import re
from time import perf_counter

from app.api.errors import error_body
from app.api.guard.access import Gate
from app.api.guard.keys import RawHeaders
from app.api.http1.connection import STATUS_LINES, Connection
from app.api.http1.fast_routes import FastRoutes, MatchedPath
from app.api.http1.head import Head
from app.errors import Overloaded
from app.serving.admission import Admission

_UNREAD = MatchedPath("/predict", (), "/predict")
"""The path of the requests that are recognised unread."""
_STATUS = 503
_PLACE = "(the id)"
_OTHER = (
    rb"(?:(?!(?i:Host|Content-Length|Transfer-Encoding|Connection|Expect|Origin|X-Request-ID):)"
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*"
)
_WHOLE = re.compile(
    rb"POST /predict(?:\?[!-~]*)? HTTP/1\.1\r\n"
    + (_OTHER + rb"(?i:Host): [A-Za-z0-9._-]{1,255}(?::[0-9]{1,5})?\r\n" + _OTHER)
    + (rb"(?i:Content-Length): ([0-9]{1,9})\r\n" + _OTHER)
    + rb"\r\n"
)
_MOST_HEAD_BYTES = 2048


def is_whole_plain_request(data: bytes) -> bool:
    """Return whether the data are exactly one plain request to `/predict`."""
    found = _WHOLE.match(data, 0, _MOST_HEAD_BYTES)
    return found is not None and found.end() + int(found[1]) == len(data)


class Shedding:
    """Rejects requests to `/predict` with the error table's bytes. One instance serves all connections of a worker."""

    def __init__(self, admission: Admission, gate: Gate, routes: FastRoutes, *, cors: bool) -> None:
        self._admission = admission
        self._gate = gate
        self._find = routes.find
        # With access checks, a rejection would tell unauthorized clients about the load.
        self._is_used = not (gate.guarded or cors)
        self._date: list[tuple[bytes, bytes]] | None = None
        self._parts: dict[int, tuple[bytes, bytes, bytes, bytes, int]] = {}  # by the seconds of Retry-After

    def reject_unread(self, connection: Connection, data: bytes) -> bool:
        """Answer 503 if the data are one plain request and there is no room for it; return whether it did."""
        if self._is_used and is_whole_plain_request(data) and not self._admission.make_room():
            self._reject(connection, (), _UNREAD)
            return True
        return False

    def reject_early(self, connection: Connection, head: Head) -> bool:
        """Answer 503 if there is no room for this request; return whether it did."""
        if (
            self._admission.overloaded
            and head.method == b"POST"
            and self._is_used
            and (found := self._find(head.path)) is not None
            and head.body_length is not None  # a chunked body may turn out to be broken, which is 400
            and not head.expects_continue
            and connection.keeps_alive
            and not self._admission.make_room()
        ):
            self._reject(connection, head.headers, found[0])
            return True
        return False

    def _reject(self, connection: Connection, headers: RawHeaders, path: MatchedPath) -> None:
        began = perf_counter()
        seconds = self._admission.count_rejected()
        request_id = self._gate.request_id(headers)
        self._gate.note(
            request_id=request_id,
            method="POST",
            path=path.path,
            route=path.template,
            model="",
            version="",
            status=_STATUS,
            code=Overloaded.code,
            seconds=perf_counter() - began,
        )
        connection.write(self._answer(seconds, request_id, connection.server_state.default_headers))

    def _answer(self, seconds: int, request_id: str, date: list[tuple[bytes, bytes]]) -> bytes:
        """Return a whole answer; `date` is uvicorn's list of common headers, replaced every second."""
        if date is not self._date:
            self._date = date
            self._parts.clear()
        parts = self._parts.get(seconds)
        if parts is None:
            parts = self._parts[seconds] = _parts_of(seconds, date)
        before_id, after_id, before_body, after_body, size = parts
        identity = request_id.encode("ascii")
        length = b"%d" % (size + len(identity))
        return b"".join((before_id, identity, after_id, length, before_body, identity, after_body))


def _parts_of(seconds: int, date: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes, bytes, int]:
    message = f"The service is overloaded. Try again in {seconds} s."
    body, _, rest = error_body(message, Overloaded.code, _PLACE).partition(_PLACE.encode())
    head = STATUS_LINES[_STATUS] + b"".join(b"%b: %b\r\n" % header for header in date)
    return (
        head + b"retry-after: %d\r\nx-request-id: " % seconds,
        b"\r\ncontent-length: ",
        b"\r\ncontent-type: application/json\r\n\r\n" + body,
        rest,
        len(body) + len(rest),
    )
