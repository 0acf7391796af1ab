"""Reject requests to classify a picture under overload for as little as possible: it must not cost the others.

Once its head is read, a plain request is answered from what was written in advance, and its body is read and dropped.
This module knows nothing of pictures or models.
"""

from time import perf_counter

from app.api.errors import error_body
from app.api.gate import Gate
from app.api.http1.connection import STATUS_LINES, Connection
from app.api.http1.head import Head
from app.errors import Overloaded
from app.serving.admission import Admission

_PATH = b"/predict"
_STATUS = 503
_PLACE = "(the id)"


class Shedding:
    """Rejects requests to `/predict` in the words of the error table. One serves all connections of a worker."""

    def __init__(self, admission: Admission, gate: Gate, *, cors: bool) -> None:
        self._admission = admission
        self._gate = gate
        # Only if anyone may ask does a rejection tell nobody more than they may know.
        self._is_used = not (gate.guarded or cors)
        self._date: list[tuple[bytes, bytes]] | None = None
        self._parts: dict[int, tuple[bytes, bytes, bytes, bytes, int]] = {}  # by the seconds after which to try again

    def reject(self, connection: Connection, head: Head) -> bool:
        """Answer 503 if the service is overloaded and has no room for this request; say whether it did."""
        admission = self._admission
        if not (
            admission.overloaded
            and head.path == _PATH
            and head.method == b"POST"
            and self._is_used
            and not head.expects_continue
            and connection.keeps_alive
            and admission.must_refuse()
        ):
            return False
        began = perf_counter()
        seconds = admission.refuse()
        request_id = self._gate.request_id(head.headers)
        path = _PATH.decode()
        self._gate.note(
            request_id=request_id,
            method="POST",
            path=path,
            route=path,
            model="",
            version="",
            status=_STATUS,
            code=Overloaded.code,
            seconds=perf_counter() - began,
        )
        connection.write(self._answer(seconds, request_id, connection.server_state.default_headers))
        return True

    def _answer(self, seconds: int, request_id: str, date: list[tuple[bytes, bytes]]) -> bytes:
        """Return a whole answer; `date` is uvicorn's list of headers for every answer, replaced every second."""
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
    message = f"The service is asked for more than it can do. Try again in {seconds} s."
    body, _, rest = error_body(message, Overloaded.code, _PLACE).partition(_PLACE.encode())
    head = STATUS_LINES[_STATUS] + b"".join(b"%b: %b\r\n" % header for header in date)
    return (
        head + b"retry-after: %d\r\nx-request-id: " % seconds,
        b"\r\ncontent-length: ",
        b"\r\ncontent-type: application/json\r\n\r\n" + body,
        rest,
        len(body) + len(rest),
    )
