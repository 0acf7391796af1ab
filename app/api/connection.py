"""A client's connection, under limits: uvicorn's HTTP/1.1 protocol, which by itself has none.

How long the request line and headers may be, how long a request may take to arrive, how long a connection may be idle,
and how long a client may leave an answer unread. What breaks a limit costs this one connection. It knows no paths and
no pictures: `app.api.fast_path` adds those.
"""

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import Any, Protocol, cast

import httptools
from fastapi import Request
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.entrance import UNMATCHED
from app.api.errors import answer_error
from app.api.gate import Gate
from app.api.lifecycle import Lifecycle
from app.errors import HeadersTooLarge, ImageclassError, MalformedRequest, ReceiveTimeout

_FRAMING = 8
"""Bytes of framing and trailers that a chunked body may have for each of its content, besides the headers' limit."""
_LINGER_S = 1.0
"""How long a refused connection stays half open. Closed at once, with unread data on its way, it would be reset, and
the client would lose the answer that says why."""

_NO_UPGRADE = MalformedRequest("This service speaks HTTP/1.1 alone. Send the request without Upgrade.")


class _Due(Protocol):
    def __call__(self, connection: "LimitedProtocol", /) -> None: ...


class Clock:
    """Calls `due` for every connection that has been on it for `seconds`. One timer serves all of them: all wait
    equally long, so they fall due in the order in which they came."""

    def __init__(self, seconds: float, due: _Due) -> None:
        self._seconds = seconds
        self._due = due
        self._since: dict[LimitedProtocol, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, connection: "LimitedProtocol") -> None:
        """Count from now, unless it is counted already."""
        if connection not in self._since:
            self._since[connection] = connection.loop.time()
            if self._timer is None:
                self._timer = connection.loop.call_later(self._seconds, self._look, connection.loop)

    def stop(self, connection: "LimitedProtocol") -> None:
        self._since.pop(connection, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        latest = loop.time() - self._seconds + 0.001  # the loop's time has steps of a millisecond
        for connection in [connection for connection, since in self._since.items() if since <= latest]:
            del self._since[connection]
            self._due(connection)
        if self._since and self._timer is None:
            oldest = next(iter(self._since.values()))
            self._timer = loop.call_later(max(0.001, oldest - latest), self._look, loop)


class ConnectionLimits:
    """The limits of the settings, and the clocks that all connections of a worker share."""

    def __init__(self, *, max_header_bytes: int, receive_timeout_s: float, keep_alive_s: float) -> None:
        self.max_header_bytes = max_header_bytes
        self.receive_timeout_s = receive_timeout_s
        self.receiving = Clock(receive_timeout_s, LimitedProtocol.end_slow_request)
        self.idle = Clock(keep_alive_s, LimitedProtocol.end_idle)
        self.unread = Clock(receive_timeout_s, LimitedProtocol.end_unread)


class LimitedProtocol(HttpToolsProtocol):
    """It finds `limits`, `gate` and `lifecycle` in the state that the application's lifespan yields."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate: Gate = self.app_state["gate"]
        self._limits: ConnectionLimits = self.app_state["limits"]
        self._lifecycle: Lifecycle = self.app_state["lifecycle"]
        self._request_is_open = False  # it has begun to arrive, and not ended
        self._head_is_open = False  # its request line and headers have not ended
        self._received = 0  # bytes since the last request ended
        self._content = 0  # bytes of the open request's body
        self._refused = False  # what arrives now is not read

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered, nor has begun to arrive."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return not (self._request_is_open or self._refused) and (cycle is None or cycle.response_complete)

    def close_after_answer(self) -> None:
        """Have the answer to the last request that has come, if it is still to be given, close the connection."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limits.receiving.start(self)  # a client that connects and says nothing is slow, too

    def connection_lost(self, exc: Exception | None) -> None:
        limits = self._limits
        for clock in (limits.receiving, limits.idle, limits.unread):
            clock.stop(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        limits = self._limits
        limits.idle.stop(self)
        self._received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(_NO_UPGRADE)  # the request itself is answered, as if it had not asked
        except httptools.HttpParserError as exc:
            cause = exc.__cause__ or exc.__context__
            self._refuse(cause if isinstance(cause, ImageclassError) else MalformedRequest("This is not HTTP/1.1."))
        else:
            if not self._request_is_open:
                limits.receiving.stop(self)
                return
            limits.receiving.start(self)
            around = self._received - self._content
            if around > limits.max_header_bytes + (0 if self._head_is_open else _FRAMING * self._content):
                self._refuse(self._headers_too_large())

    @property
    def awaits_request(self) -> bool:
        """Whether what arrives next is the beginning of a request, whose answer need not be the last."""
        return not (self._request_is_open or self._refused or self._lifecycle.stopping)

    def stay_open(self) -> None:
        """Begin to wait for the next request: an answer was written that the parser knows nothing of."""
        self._limits.receiving.stop(self)
        self._limits.idle.stop(self)
        self._limits.idle.start(self)

    # What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._request_is_open = self._head_is_open = True
        self._content = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_is_open:  # else it is a trailer, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        limit = self._limits.max_header_bytes
        # What came in one piece may be mostly body, so the head is counted only where it can be too long.
        if (
            self._received > limit
            and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > limit
        ):
            raise self._headers_too_large()
        if self.parser.should_upgrade() and self.parser.get_method() == b"POST":
            raise _NO_UPGRADE  # what follows the head is not parsed as its body
        self._head_is_open = False
        self.open_cycle()
        if self._lifecycle.stopping:
            self.cycle.keep_alive = False

    def open_cycle(self) -> None:
        """Begin to answer the request whose head is complete."""
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._request_is_open = False
        self._received = 0
        super().on_message_complete()

    # What becomes of answers

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._limits.unread.start(self)
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if self._lifecycle.stopping:
                cycle.keep_alive = False
            self._start_asgi_task(cycle, app)
        elif self._refused:
            self._end_politely()
        else:
            self.flow.resume_reading()
            self._limits.idle.start(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limits.unread.start(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._limits.unread.stop(self)

    # What becomes of a connection whose time is up

    def end_slow_request(self) -> None:
        """A request has been arriving for too long, or none came at all."""
        if self._request_is_open:
            seconds = f"{self._limits.receive_timeout_s:g} s"
            self._refuse(ReceiveTimeout(f"The request did not arrive within {seconds}. Send it again, faster."))
        else:
            self.transport.close()

    def end_idle(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # the client has not even read its last answer
        else:
            self.transport.close()

    def end_unread(self) -> None:
        self.transport.abort()

    def _headers_too_large(self) -> HeadersTooLarge:
        limit = f"{self._limits.max_header_bytes:,} bytes"
        return HeadersTooLarge(f"The request line and headers are longer than {limit}. Send fewer, or shorter ones.")

    def _refuse(self, error: ImageclassError) -> None:
        """Read no further. What came before is answered still; the open request is answered with the error."""
        self._refused = True
        self._limits.receiving.stop(self)
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and self._request_is_open and not self._head_is_open:
            if self.pipeline:  # the open request waits behind others; it is dropped, and they are answered
                self.pipeline.popleft()
                return
            answer_has_begun = cycle.response_started
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
            if answer_has_begun:
                self._end_politely()
                return
        elif cycle is not None and not cycle.response_complete:
            return  # the answer before it is on its way, and `on_response_complete` ends the connection
        if not self.transport.is_closing():
            self._answer(error)
            self._end_politely()

    def _answer(self, error: ImageclassError) -> None:
        began = perf_counter()
        began_with = cast("dict[str, Any] | None", self.scope) or {}  # None before the first byte that could be HTTP
        scope: dict[str, Any] = {"type": "http", "headers": (), **began_with, "state": {}}
        request_id = scope["state"]["request_id"] = self.gate.request_id(scope["headers"])
        response = answer_error(Request(scope), error)
        self.write_answer(response.status_code, response.raw_headers, bytes(response.body), keep_alive=False)
        self.gate.note(
            request_id=request_id,
            method=scope.get("method", ""),
            path=scope.get("path", ""),
            route=UNMATCHED,
            model="",
            version="",
            status=response.status_code,
            code=error.code,
            seconds=perf_counter() - began,
        )

    def write_answer(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, keep_alive: bool
    ) -> None:
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        lines.append(body)
        self.transport.write(b"".join(lines))

    def _end_politely(self) -> None:
        """Close the connection in a moment, and read until then what the client still sends."""
        transport = self.transport
        self.flow.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self.loop.call_later(_LINGER_S, transport.abort)
