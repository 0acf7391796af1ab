"""A client's connection: one request at a time, under limits.

A connection reads a head and its body, and reads no further until the request is answered; data that the client sends
ahead is buffered as bytes. So a request's limits, clock and answer can never be taken for another's. The exchange owns
everything that a request holds. The connection ends the exchange when it is answered or when the client is gone.

Limits: the length of a head, the time for a request to arrive, the time a connection may be idle, the time an answer
may stay unread. Breaking one ends this connection alone. This module knows no paths and no pictures.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Any, Protocol

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from app.api.errors import answer_error
from app.api.guard.access import Gate
from app.api.guard.request_context import UNMATCHED
from app.api.http1.body import BodyByLength, BodyInChunks
from app.api.http1.clocks import Clock
from app.api.http1.head import Head, HeadReader
from app.api.lifecycle import Lifecycle
from app.errors import ReceiveTimeout

STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MOST_AHEAD = 64 * 1024
"""Reading pauses when this many bytes of later requests are buffered."""
_LINGER_S = 2.0
"""Close a connection after this many seconds of silence if the client should have closed it. If it were closed at once,
with bytes in transit, it would be reset, and the client could lose the answer (RFC 9112, section 9.6)."""

RawAnswerHeaders = Iterable[tuple[bytes, bytes]]


class Exchange(Protocol):
    """One request and its answer. It owns the request's resources, and releases them once, however it ends.

    It answers by `Connection.answer`, or in pieces by `Connection.write_head`, `write` and `end_answer`.
    """

    def receive(self, piece: bytes, /) -> None:
        """Take a piece of the body."""

    def begin(self) -> None:
        """Begin to answer: the body is complete."""

    def lose_body(self) -> None:
        """Note that the rest of the body will not arrive. The client may still read an answer."""

    def cancel(self) -> None:
        """Release the request's resources: nobody reads the answer."""


class Limits:
    """The configured limits, and the clocks that all connections of a worker share."""

    def __init__(self, *, max_header_bytes: int, receive_timeout_s: float, keep_alive_s: float) -> None:
        self.max_header_bytes = max_header_bytes
        self.receive_timeout_s = receive_timeout_s
        self.keep_alive_s = keep_alive_s
        self.receiving: Clock[Connection] = Clock(receive_timeout_s, Connection.end_slow_request)
        self.idle: Clock[Connection] = Clock(keep_alive_s, Connection.end_idle)
        self.unread: Clock[Connection] = Clock(receive_timeout_s, Connection.abort)
        self.lingering: Clock[Connection] = Clock(_LINGER_S, Connection.end_lingering)


@dataclass(frozen=True)
class Services:
    """The handlers and limits that the connections of a worker share."""

    gate: Gate
    lifecycle: Lifecycle
    limits: Limits
    overloaded: Callable[[], bool]
    reject_unread: Callable[["Connection", bytes], bool]
    """Reject a whole, unparsed request under overload; return whether it was rejected."""
    reject_early: Callable[["Connection", Head], bool]
    """Reject a request under overload before its body is read; return whether it was rejected."""
    fast_path: Callable[["Connection", Head], Exchange | None]
    """The handler of plain requests, without ASGI. None leaves the request to the application."""
    application: Callable[["Connection", Head], Exchange]
    """The handler of all other requests."""


class ServerConfig(Protocol):
    """The HTTP server's configuration, as each connection gets it."""

    @property
    def loaded_app(self) -> ASGIApp: ...


class ServerState(Protocol):
    """The HTTP server's state for all connections of a worker."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: list[tuple[bytes, bytes]]
    """The headers of every answer. The list is replaced every second, with a new date."""


class Connection(asyncio.Protocol):
    """A client's connection. Its `Services` are `connections` in the state that the application's lifespan yields."""

    transport: asyncio.Transport

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.app: ASGIApp = config.loaded_app
        self.app_state = app_state
        self.services: Services = app_state["connections"]
        self.loop = _loop or asyncio.get_running_loop()
        self.server_state = server_state
        self.exchange: Exchange | None = None
        """The request that is being answered."""
        self._limits = self.services.limits
        self._clock: Clock[Connection] | None = None  # the running one, besides `unread`
        self._reader: HeadReader | None = None  # while a head arrives
        self._body: BodyByLength | BodyInChunks | None = None  # while a body arrives
        self._ahead = b""  # what the client sent after the request that is being answered
        self._ahead_from = 0  # the position of the next request in it
        self._resume_is_due = False
        self._head: Head | None = None  # of the last request
        self._continue_is_owed = False  # the client waits for 100 Continue
        self._answer_has_begun = False  # of the last request
        self._is_last = False  # the server is stopping
        self._client_has_ended = False  # it has shut down its sending side
        self._is_ending = False  # no further request is answered
        self._linger_until = 0.0
        self._reading_is_paused = False
        self._writing_is_paused = False
        self._drained: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is in flight, buffered, or has begun to arrive."""
        return self.exchange is None and not self._ahead and not self._request_is_open

    @property
    def _request_is_open(self) -> bool:
        return self._body is not None or (self._reader is not None and self._reader.has_begun)

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.server_state.connections.add(self)
        self._put_on(self._limits.receiving)  # a client that connects and sends nothing is slow, too

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._put_on(None)
        self._limits.unread.stop(self)
        self.server_state.connections.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
        self._say_drained()

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            self._linger_on()
        elif self._ahead or self._writing_is_paused or (self.exchange is not None and self._body is None):
            self._keep(self._ahead[self._ahead_from :] + data, 0)
        elif (
            self.services.overloaded()
            and self._body is None
            and self._reader is None
            and self.stays_open
            and self.services.reject_unread(self, data)
        ):
            self._put_on(None)
            self._put_on(self._limits.idle)
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """The client sends nothing more. Return whether the connection stays open for answers."""
        self._client_has_ended = True
        if self._is_ending:
            return False
        if self._request_is_open and not self._ahead:
            return self._lose_rest()
        if self.is_idle:
            return False
        # A client that closes its socket looks the same as one that ends its sending side and reads on. Under overload
        # the answer is not worth its work.
        return not self.services.overloaded()

    def pause_writing(self) -> None:
        self._writing_is_paused = True
        self._limits.unread.start(self)

    def resume_writing(self) -> None:
        self._writing_is_paused = False
        self._limits.unread.stop(self)
        self._say_drained()
        self._settle()

    # Reading requests

    def _read(self, data: bytes, start: int = 0) -> None:
        """Read the data from `start` up to the end of one request; keep the rest for later."""
        position: int | None = start
        try:
            if self._body is None:
                position = self._read_head(data, start)
            if position is not None and self._body is not None:
                self._read_body(self._body, data, position)
        except Exception as exc:  # noqa: BLE001 - a defect gets the one error shape, too
            self._reject(exc)
            return
        self._settle()

    def _read_head(self, data: bytes, start: int) -> int | None:
        reader = self._reader
        if reader is None:
            reader = self._reader = HeadReader(self._limits.max_header_bytes)
            self._answer_has_begun = had_begun = False
        else:
            had_begun = reader.has_begun
        position = reader.read(data, start)
        if self._clock is not None and not had_begun and reader.has_begun:
            self._put_on(None)  # the time of this request begins now
        if position is not None:
            head = self._head = reader.head()
            self._reader = None
            self._open(head)
        return position

    def _read_body(self, body: BodyByLength | BodyInChunks, data: bytes, position: int) -> None:
        piece, position = body.read(data, position)
        if piece and self.exchange is not None:
            self._continue_is_owed = False
            self.exchange.receive(piece)
        if self._is_ending:
            return
        if position < len(data):  # before the answer, which says whether others follow
            self._keep(data, position)
        if body.is_complete:
            self._body = None
            if self.exchange is None:
                self._put_on(None)  # it was answered before
            else:
                self.exchange.begin()

    def _open(self, head: Head) -> None:
        length = head.body_length
        self._body = BodyInChunks(self._limits.max_header_bytes) if length is None else BodyByLength(length)
        self._continue_is_owed = head.expects_continue
        services = self.services
        if services.reject_early(self, head):
            self._answer_has_begun = True
            return
        exchange = services.fast_path(self, head)
        self.exchange = services.application(self, head) if exchange is None else exchange

    def _settle(self) -> None:
        """Start the clock of the connection's new state, and continue with data that the client sent ahead."""
        if self._is_ending:
            return
        if (self._body is not None or self._reader is not None) and self._request_is_open:
            self._put_on(self._limits.receiving)
            if self._ahead:  # the rest of its body, buffered while reading was paused or yielded
                self._resume_soon()
        elif self.exchange is not None or self._writing_is_paused:
            self._put_on(None)  # the client waits for the service, or `unread` is running
        elif self._ahead:
            self._put_on(None)
            self._resume_soon()
        elif self._client_has_ended:
            self._end()
        elif self._clock is None:  # else no request has begun since it was started
            self._clock = self._limits.idle
            self._clock.start(self)

    def _keep(self, data: bytes, position: int) -> None:
        """Buffer the data from the position on, and pause reading until most of them have been used."""
        self._ahead, self._ahead_from = data, position
        if self._has_enough_ahead:
            self.pause_reading()

    @property
    def _has_enough_ahead(self) -> bool:
        return len(self._ahead) - self._ahead_from > _MOST_AHEAD

    def _resume_soon(self) -> None:
        if not self._resume_is_due:
            self._resume_is_due = True
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._resume_is_due = False
        if self._is_ending or self._writing_is_paused or not self._ahead:
            return
        data, start = self._ahead, self._ahead_from
        self._ahead, self._ahead_from = b"", 0
        self.resume_reading()
        self._read(data, start)
        if self._client_has_ended and self._request_is_open and not self._ahead:
            self._lose_rest()

    def _lose_rest(self) -> bool:
        """The rest of the open request will not arrive. Return whether an answer is still to come."""
        body, self._body = self._body, None
        if self.exchange is not None:
            self.exchange.lose_body()
            return True
        if body is None:
            self._reject(ClientDisconnect())
        else:
            self._end()  # it is answered already
        return False

    def pause_reading(self) -> None:
        if not self._reading_is_paused and not self.transport.is_closing():
            self._reading_is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_is_paused and not (self._has_enough_ahead or self.transport.is_closing()):
            self._reading_is_paused = False
            self.transport.resume_reading()

    # Called by exchanges

    @property
    def reads_answers(self) -> bool:
        """Whether the client reads its answers."""
        return not self._writing_is_paused

    def send_continue(self) -> None:
        """Send 100 Continue if the client waits for it (RFC 9110, section 10.1.1)."""
        if self._continue_is_owed and self._body is not None:
            self._continue_is_owed = False
            self.write(_CONTINUE)

    def answer(self, status: int, headers: RawAnswerHeaders, body: bytes) -> None:
        """Write a whole answer."""
        self.answer_lines(status, b"".join([b"%b: %b\r\n" % header for header in headers]), body)

    def answer_lines(self, status: int, fields: bytes, body: bytes) -> None:
        """Write a whole answer. `fields` are its headers, a line each."""
        keep_alive = self.keeps_alive
        self._answer_has_begun = True
        lines = self._lines(status, (), keep_alive=keep_alive)
        lines.insert(-1, fields)
        lines.append(body)
        self.write(b"".join(lines))
        self.end_answer(keep_alive=keep_alive)

    def write_head(self, status: int, headers: RawAnswerHeaders) -> bool:
        """Write the head of an answer, and return whether the connection is kept alive, for `end_answer`."""
        keep_alive = self.keeps_alive
        self._answer_has_begun = True
        self.write(b"".join(self._lines(status, headers, keep_alive=keep_alive)))
        return keep_alive

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def end_answer(self, *, keep_alive: bool) -> None:
        """The answer is written: go on to the next request, or end the connection."""
        self.exchange = None
        if keep_alive:
            if self._reading_is_paused and not self._ahead:
                self.resume_reading()  # an exchange may have paused it and answered before taking the body
            self._settle()
        else:
            self._end()

    def break_off(self) -> None:
        """Abort a connection whose answer cannot be completed, so that the client does not take it for complete."""
        self.exchange = None
        self._close()

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow the current answer."""
        return (
            self._head is not None
            and self._head.keep_alive
            and self.stays_open
            # The client would not know whether to send the body.
            and not (self._continue_is_owed and self._body is not None)
        )

    @property
    def stays_open(self) -> bool:
        """Whether the service accepts another request on this connection."""
        return (
            self._limits.keep_alive_s > 0
            and not self._is_last
            and not self.services.lifecycle.stopping
            and not (self._client_has_ended and not self._ahead)
        )

    async def drain(self) -> None:
        """Wait until the client has read enough of the written data, or is gone."""
        if self._writing_is_paused and not self.transport.is_closing():
            if self._drained is None:
                self._drained = self.loop.create_future()
            await self._drained

    def _say_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _lines(self, status: int, headers: RawAnswerHeaders, *, keep_alive: bool) -> list[bytes]:
        lines = [STATUS_LINES[status]]
        for name, value in self.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        return lines

    # How a connection ends

    def shutdown(self) -> None:
        """Close the connection: now if it is idle, else with its pending answer."""
        self._is_last = True
        if self.is_idle:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def end_slow_request(self) -> None:
        """Reject a request that has been arriving for too long, or end a connection on which none came."""
        self._clock = None
        if self.exchange is None and self._body is not None:
            self._end()  # it is answered already
        elif self._request_is_open:
            seconds = f"{self._limits.receive_timeout_s:g} s"
            self._reject(
                ReceiveTimeout(
                    f"The request did not arrive completely within {seconds}. Send it again without pausing."
                )
            )
        else:
            self.transport.close()

    def end_idle(self) -> None:
        self._clock = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # the client has not even read its last answer
        else:
            self.transport.close()

    def end_lingering(self) -> None:
        self._clock = None
        if self.transport.get_write_buffer_size() and self.loop.time() < self._linger_until:
            self._put_on(self._limits.lingering)  # the client reads slowly, but is not silent
        else:
            self.transport.abort()

    def _reject(self, error: Exception) -> None:
        """Answer the open request with the error, unless it has an answer, and read no further."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
        if not (self._answer_has_begun or self.transport.is_closing()):
            self._answer_error(error)
        self._end()

    def _answer_error(self, error: Exception) -> None:
        began = perf_counter()
        reader = self._reader
        head = self._head if reader is None else None
        headers = reader.headers if reader is not None else () if head is None else head.headers
        asks_for_head = reader.asks_for_head if reader is not None else head is not None and head.method == b"HEAD"
        request_id = self.services.gate.request_id(headers)
        scope: dict[str, Any] = {"type": "http", "headers": (), "state": {"request_id": request_id}}
        response = answer_error(Request(scope), error)
        lines = self._lines(response.status_code, response.raw_headers, keep_alive=False)
        if not asks_for_head:
            lines.append(bytes(response.body))
        self.transport.write(b"".join(lines))
        self.services.gate.note(
            request_id=request_id,
            method="" if head is None else head.method.decode("ascii"),
            path="" if head is None else head.decoded_path,
            route=UNMATCHED,
            model="",
            version="",
            status=response.status_code,
            code=scope["state"]["code"],
            seconds=perf_counter() - began,
        )

    def _end(self) -> None:
        """Close after the written data. Until the client closes too, read and drop what it sends."""
        if self._is_ending:
            return
        self._is_ending = True
        self._ahead, self._body, self._reader = b"", None, None
        if self._client_has_ended:
            self._close()
        elif not self.transport.is_closing():
            self.resume_reading()
            self._linger()
            self.transport.write_eof()

    def _close(self) -> None:
        """Close after the written data, or abort if the client does not read it in time."""
        self._is_ending = True
        self._linger()
        self.transport.close()

    def _linger(self) -> None:
        self._linger_until = self.loop.time() + self._limits.receive_timeout_s
        self._put_on(self._limits.lingering)

    def _linger_on(self) -> None:
        if self.loop.time() > self._linger_until:
            self.transport.abort()
        else:
            self._put_on(None)
            self._put_on(self._limits.lingering)

    def _put_on(self, clock: Clock["Connection"] | None) -> None:
        if clock is not self._clock:
            if self._clock is not None:
                self._clock.stop(self)
            self._clock = clock
            if clock is not None:
                clock.start(self)
