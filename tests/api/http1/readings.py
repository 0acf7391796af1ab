"""The requests in a stream of bytes, as the service reads them and as h11 does, without input or output."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import h11

from app.api.http1.body import BodyByLength, BodyInChunks
from app.api.http1.head import HeadReader
from app.errors import RequestError

LIMIT = 64 * 1024
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_ADDRESS = re.compile(rb"[^:/?#]+://([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)  # RFC 3986, appendix B


@dataclass(frozen=True)
class Message:
    """A whole request."""

    method: bytes
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    keep_alive: bool
    expects_continue: bool


@dataclass
class Reading:
    """The whole requests, and what comes after them. After a request that ends the connection, nothing is read."""

    methods: list[bytes] = field(default_factory=list)
    """Of all requests that have a valid head, or begin with HEAD; the last may be broken or incomplete."""
    messages: list[Message] = field(default_factory=list)
    rest: Literal["nothing", "incomplete", "error"] = "nothing"
    reason: str = ""


def read(pieces: Iterable[bytes], limit: int = LIMIT) -> Reading:
    """Read with the service's own parts."""
    found = Reading()
    reader, body, content = HeadReader(limit), None, b""
    try:
        for data in pieces:
            while data:
                position: int | None = 0
                if body is None:
                    position = reader.read(data)
                    if position is None:
                        break
                    head = reader.head()
                    found.methods.append(head.method)
                    body = BodyInChunks(limit) if head.body_length is None else BodyByLength(head.body_length)
                assert position is not None
                piece, position = body.read(data, position)
                content += piece
                data = data[position:]  # noqa: PLW2901
                if body.is_complete:
                    found.messages.append(
                        Message(
                            head.method,
                            head.path,
                            head.query,
                            _comparable(head.headers),
                            content,
                            head.keep_alive,
                            head.expects_continue,
                        )
                    )
                    if not head.keep_alive:
                        return found
                    reader, body, content = HeadReader(limit), None, b""
    except RequestError as exc:
        found.rest, found.reason = "error", str(exc)
    else:
        found.rest = "incomplete" if body is not None or reader.has_begun else "nothing"
    if body is None and reader.asks_for_head and len(found.methods) == len(found.messages):
        found.methods.append(b"HEAD")
    return found


def read_by_h11(data: bytes) -> Reading:
    """Read with h11. Empty lines before a request line are skipped (RFC 9112, section 2.2), which h11 does not do."""
    found = Reading()
    try:
        while data := data[_match_end(data) :]:
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(data) + 1)
            connection.receive_data(data)
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                found.rest = "incomplete"
                break
            found.methods.append(request.method)
            expects_continue = connection.they_are_waiting_for_100_continue
            content = b""
            while isinstance(event := connection.next_event(), h11.Data):
                content += event.data
            if not isinstance(event, h11.EndOfMessage):
                found.rest = "incomplete"
                break
            if connection.their_state not in {h11.DONE, h11.MUST_CLOSE}:  # it waits for another protocol
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
            keep_alive = connection.their_state is not h11.MUST_CLOSE
            headers, path, query = _resolved(request)
            found.messages.append(Message(request.method, path, query, headers, content, keep_alive, expects_continue))
            if not keep_alive:
                break
            data = connection.trailing_data[0]
    except h11.RemoteProtocolError as exc:
        found.rest, found.reason = "error", str(exc)
    return found


def _match_end(data: bytes) -> int:
    found = _EMPTY_LINES.match(data)
    return 0 if found is None else found.end()


def _comparable(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers with what h11 normalises normalised: spaces around values, and the case of a coding."""
    return tuple(
        (name, value.strip(b" \t").lower() if name == b"transfer-encoding" else value.strip(b" \t"))
        for name, value in headers
    )


def _resolved(request: h11.Request) -> tuple[tuple[tuple[bytes, bytes], ...], bytes, bytes]:
    """Return headers, path and query; the host of an absolute target replaces the header (RFC 9112, section 3.2.2)."""
    headers, target = _comparable(request.headers), bytes(request.target)
    if target[:1] == b"/" or target == b"*":
        path, _, query = target.partition(b"#")[0].partition(b"?")
        return headers, path, query
    address = _ADDRESS.match(target)
    if address is None:
        return headers, target, b""
    host, path, query = address[1], address[2] or b"/", address[3] or b""
    return ((b"host", host), *(header for header in headers if header[0] != b"host")), path, query
