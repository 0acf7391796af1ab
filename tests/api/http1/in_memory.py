"""A real connection without a socket: its transport is a list of bytes, and its time passes only when it is told to."""

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from app.api.guard.access import Gate
from app.api.http1.asgi import AsgiExchange
from app.api.http1.connection import Connection, Limits, Services
from app.api.http1.fast_routes import FastRoute, FastRoutes
from app.api.http1.head import Head
from app.api.http1.shedding import Shedding
from app.api.lifecycle import Lifecycle
from app.metrics import Metrics
from app.serving.admission import Admission
from tests.api.http1.readings import read

_METRICS = Metrics()
_HIGH_WATER = 256
"""Unread bytes of answers at which a connection is told to write no more."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop that waits for nothing: time passes by `wait`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self  # BaseEventLoop asks it for events, of which there are none
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._now

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def _process_events(self, _events: list[Any]) -> None:
        pass

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def settle(self) -> None:
        """Run what is ready, and what that makes ready."""
        loop: Any = self
        with self.running():
            while loop._ready:
                loop._run_once()

    def wait(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        loop: Any = self
        end = self._now + seconds
        self.settle()
        while loop._scheduled and loop._scheduled[0].when() <= end:
            self._now = max(self._now, loop._scheduled[0].when())
            with self.running():
                loop._run_once()
            self.settle()
        self._now = end


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and notes what a socket would punish."""

    def __init__(self, loop: VirtualLoop, connection: Connection) -> None:
        super().__init__()
        self._loop = loop
        self._connection = connection
        self.written = bytearray()
        self.unread = 0
        """Bytes that the client has not read yet; counted while it does not read."""
        self.client_reads = True
        self.is_reading_paused = False
        self.has_ended = False
        """Whether the service has said that it sends nothing more."""
        self.is_lost = False
        self._is_closing = False
        self._writing_is_paused = False
        self.mistakes: list[str] = []

    def write(self, data: Any) -> None:
        if self._is_closing or self.has_ended:
            self.mistakes.append(f"{bytes(data)[:60]!r} was written after the end")
            return
        if not data:
            self.mistakes.append("nothing was written")
        self.written += data
        if not self.client_reads:
            self.unread += len(data)
            if self.unread > _HIGH_WATER and not self._writing_is_paused:
                self._writing_is_paused = True
                self._connection.pause_writing()

    def read_on(self) -> None:
        """Be a client that reads all it was sent, and goes on reading."""
        self.client_reads, self.unread = True, 0
        if self._writing_is_paused:
            self._writing_is_paused = False
            with self._loop.running():
                self._connection.resume_writing()
        if self._is_closing:
            self._lose()

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self.unread:
                self._lose()

    def abort(self) -> None:
        self._is_closing = True
        self.unread = 0
        self._lose()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._loop.call_soon(self._connection.connection_lost, None)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        if self.is_reading_paused:
            self.mistakes.append("reading was paused twice")
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        if not self.is_reading_paused:
            self.mistakes.append("reading was resumed and had not been paused")
        self.is_reading_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 8000) if name in {"peername", "sockname"} else default


class Echo:
    """An exchange that tells what was asked, at a time that the query says, and counts how often it ended."""

    def __init__(self, service: "Service", connection: Connection, head: Head) -> None:
        self._service = service
        self._connection = connection
        self._head = head
        self._body = b""
        self.ends = 0

    def receive(self, piece: bytes) -> None:
        self._body += piece
        if self._head.query == b"early":
            self._connection.loop.call_soon(self._answer, 200)

    def begin(self) -> None:
        if self._head.query == b"later":
            self._connection.loop.call_later(1, self._answer, 200)
        elif self._head.query != b"never":
            self._answer(200)

    def lose_body(self) -> None:
        self._answer(400)

    def cancel(self) -> None:
        self.ends += 1

    def _answer(self, status: int) -> None:
        if self._connection.exchange is not self:
            return  # it ended before its time came
        self.ends += 1
        body = echo_of(self._head.method, self._head.path, self._head.query, self._body)
        headers = [(b"content-length", b"%d" % len(body)), (b"x-echo", b"1")]
        content = b"" if self._head.method == b"HEAD" else body
        if self._head.query == b"pieces":
            keep_alive = self._connection.write_head(status, headers)
            if content:
                self._connection.write(content)
            self._connection.end_answer(keep_alive=keep_alive)
        else:
            self._connection.answer(status, headers, content)


def echo_of(method: bytes, path: bytes, query: bytes, body: bytes) -> bytes:
    return b"%b %b?%b\n%b" % (method, path, query, body)


async def echo_application(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what `Echo` does by ASGI; some paths do it in ways of their own."""
    path = scope["raw_path"]
    if path == b"/fails":
        raise RuntimeError("a defect")
    status, body, more = 200, b"", path != b"/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            status = 400
            break
        body += message["body"]
        more = message["more_body"]
    if path == b"/slow":
        await asyncio.sleep(1)
    echo = echo_of(scope["method"].encode("ascii"), path, scope["query_string"], body)
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-echo", b"1")]})
    if path == b"/stream":
        for position in range(0, len(echo), 100):
            await send({"type": "http.response.body", "body": echo[position : position + 100], "more_body": True})
        await send({"type": "http.response.body"})
        return
    if path == b"/broken":
        await send({"type": "http.response.body", "body": echo, "more_body": True})
        raise RuntimeError("a defect in the middle")
    await send({"type": "http.response.body", "body": echo})


class Service:
    """One connection with everything around it. `/echo` is answered by `Echo`, the rest by the application."""

    def __init__(self, *, overloaded: bool = False, max_header_bytes: int = 2048, receive_timeout_s: float = 5) -> None:
        self.loop = VirtualLoop()
        self.exchanges: list[Echo] = []
        self.lifecycle = Lifecycle()
        self.limits = Limits(max_header_bytes=max_header_bytes, receive_timeout_s=receive_timeout_s, keep_alive_s=10)
        self.noted: list[int] = []
        self._body_began = False
        gate = _NotingGate(self.noted)
        admission = SimpleNamespace(overloaded=overloaded, make_room=lambda: not overloaded, count_rejected=lambda: 1)
        shedding = Shedding(
            cast("Admission", admission), gate, FastRoutes([FastRoute("/predict", lambda *_: None)]), cors=False
        )
        self._state = ServerState()
        self._state.default_headers = [(b"date", b"today"), (b"server", b"imageclass")]
        services = Services(
            gate=gate,
            lifecycle=self.lifecycle,
            limits=self.limits,
            overloaded=lambda: overloaded,
            reject_unread=shedding.reject_unread,
            reject_early=shedding.reject_early,
            fast_path=self._open_echo,
            application=AsgiExchange,
        )
        config = cast("Config", SimpleNamespace(loaded_app=echo_application))
        self.connection = Connection(config, self._state, {"connections": services}, self.loop)
        self.transport = MemoryTransport(self.loop, self.connection)
        with self.loop.running():
            self.connection.connection_made(self.transport)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        if not self.transport.is_lost:
            self.transport.abort()
        self.loop.wait(60)
        self.loop.close()

    def send(self, data: bytes) -> bool:
        """Be sent data; return False if the service does not read them, now or ever."""
        if self.transport.is_closing() or self.transport.is_reading_paused:
            return False
        with self.loop.running():
            self.connection.data_received(data)
        return True

    def end(self) -> None:
        """Be told that the client sends nothing more, as asyncio tells it."""
        if not self.transport.is_closing():
            with self.loop.running():
                if not self.connection.eof_received():
                    self.transport.close()

    @property
    def leftovers(self) -> list[str]:
        """What a connection that is lost still holds; there should be nothing."""
        connection, limits = self.connection, self.limits
        clocks = {"receiving": limits.receiving, "idle": limits.idle, "unread": limits.unread, "late": limits.lingering}
        found = [f"the clock {name!r}" for name, clock in clocks.items() if len(clock)]
        found += [f"{len(self._state.tasks)} tasks"] if self._state.tasks else []
        found += ["a place among the server's connections"] if self._state.connections else []
        found += ["an exchange"] if connection.exchange is not None else []
        found += [f"an exchange that ended {echo.ends} times" for echo in self.exchanges if echo.ends != 1]
        return found

    def _open_echo(self, connection: Connection, head: Head) -> Echo | None:
        if head.path != b"/echo" or head.expects_continue or head.is_1_0:
            return None
        echo = Echo(self, connection, head)
        self.exchanges.append(echo)
        return echo


class _NotingGate(Gate):
    """Writes no log."""

    def __init__(self, noted: list[int]) -> None:
        super().__init__(
            keys=None,
            allowed_hosts=None,
            metrics_access="open",
            docs_access="open",
            page_access="open",
            metrics=_METRICS,
            access_log=False,
        )
        self._noted = noted

    def note(self, *, status: int, **_: Any) -> None:
        self._noted.append(status)


class WrittenAnswer:
    """An answer as h11 reads it."""

    def __init__(self, response: h11.Response, body: bytes, *, is_complete: bool) -> None:
        self.status: int = response.status_code
        self.headers = dict(response.headers)
        self.body = body
        self.is_complete = is_complete

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:200]!r}" + ("" if self.is_complete else " (cut off)")

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection") == b"close"

    @property
    def outcome(self) -> tuple[int, bool]:
        return self.status, self.closes


def answers_in(written: bytes, methods: list[bytes]) -> list[WrittenAnswer]:
    """Return the answers to requests by these methods, in order. Raises h11.RemoteProtocolError for any other byte."""
    found: list[WrittenAnswer] = []
    while written:
        method = methods[len(found)] if len(found) < len(methods) else b"POST"
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(written) + 1)
        client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(written)
        while isinstance(event := client.next_event(), h11.InformationalResponse):
            pass
        if event is h11.NEED_DATA and not client.trailing_data[0]:
            break  # it was told to send its body, and has no answer
        assert isinstance(event, h11.Response), written  # else half an answer was written
        if not {b"content-length", b"transfer-encoding"} & dict(event.headers).keys():
            client.receive_data(b"")  # the body ends with the connection
        response, body = event, b""
        while isinstance(event := client.next_event(), h11.Data):
            body += event.data
        found.append(WrittenAnswer(response, body, is_complete=isinstance(event, h11.EndOfMessage)))
        if not found[-1].is_complete:
            break
        written = client.trailing_data[0]
    return found


def answered(pieces: list[bytes], *, overloaded: bool = False) -> list[WrittenAnswer]:
    """Return the answers to what a client sends in pieces and then waits."""
    with Service(overloaded=overloaded) as service:
        for piece in pieces:
            service.send(piece)
            service.loop.settle()
        service.loop.wait(60)
        assert not service.transport.mistakes
        return answers_in(bytes(service.transport.written), read(pieces).methods)
