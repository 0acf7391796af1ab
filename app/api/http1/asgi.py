"""Answer a request by an ASGI application (ASGI 3.0, HTTP 2.3)."""

import asyncio
from typing import Any

import structlog
from starlette.types import Message

from app.api.http1.connection import Connection
from app.api.http1.head import Head

_HIGH_WATER = 64 * 1024
"""Reading pauses when this many bytes of a body are buffered for the application."""
_WITHOUT_BODY = frozenset({204, 304})

_log = structlog.stdlib.get_logger(__name__)


class AsgiExchange:
    """One request, and the application's task that answers it. The task releases its admission lease when it ends."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head
        self._pieces: list[bytes] = []  # of the body, not yet received by the application
        self._size = 0
        self._is_complete = False  # the body has arrived
        self._is_lost = False  # the client is gone, or will not send the rest
        self._changed = asyncio.Event()
        self._is_delivered = False  # the application has received the whole body
        self._start: Message | None = None  # the answer's status and headers
        self._keep_alive: bool | None = None  # None before the answer's head is written
        self._left: int | None = None  # bytes of the answer's body, if it declares its length
        self._is_in_chunks = False
        self._drops_body = False
        self._is_answered = False  # nothing more is written
        transport, version = connection.transport, "1.0" if head.is_1_0 else "1.1"
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": _address(transport.get_extra_info("sockname")),
            "client": _address(transport.get_extra_info("peername")),
            "scheme": "http",
            "root_path": "",
            "method": head.method.decode("ascii"),
            "path": head.decoded_path,
            "raw_path": head.path,
            "query_string": head.query,
            "headers": head.headers,
            "state": connection.app_state.copy(),
        }
        tasks = connection.server_state.tasks
        task = connection.loop.create_task(self._run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # Called by the connection

    def receive(self, piece: bytes) -> None:
        if self._is_answered:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _HIGH_WATER:
            self._connection.pause_reading()
        self._changed.set()

    def begin(self) -> None:
        self._is_complete = True
        self._changed.set()

    def lose_body(self) -> None:
        self._is_lost = True
        self._changed.set()

    def cancel(self) -> None:
        self._is_lost = self._is_answered = True
        self._pieces.clear()
        self._changed.set()

    # Called by the application

    async def _run(self) -> None:
        try:
            await self._connection.app(self._scope, self._receive, self._send)
        except Exception as exc:  # noqa: BLE001 - the application answers its own errors; this is a defect
            if not self._is_answered:
                _log.error("defect", reason="the application did not answer", exc_info=exc)
        finally:
            if not self._is_answered:
                self._is_answered = True
                self._connection.break_off()

    async def _receive(self) -> Message:
        if not (self._pieces or self._is_complete):
            self._connection.send_continue()
        while not (self._is_lost or self._is_answered or self._has_more):
            self._changed.clear()
            await self._changed.wait()
        if self._is_lost or self._is_answered:
            return {"type": "http.disconnect"}
        body, self._pieces, self._size = b"".join(self._pieces), [], 0
        self._is_delivered = self._is_complete
        self._connection.resume_reading()
        return {"type": "http.request", "body": body, "more_body": not self._is_delivered}

    @property
    def _has_more(self) -> bool:
        return bool(self._pieces) or (self._is_complete and not self._is_delivered)

    async def _send(self, message: Message) -> None:
        if self._is_answered:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._keep_alive is not None:
            self._go_on(body, more=more)
        elif self._start is None:
            raise RuntimeError(f"the application sent {message['type']} before http.response.start")
        else:
            self._begin_answer(self._start, body, more=more)
        if more:
            await self._connection.drain()

    def _begin_answer(self, start: Message, body: bytes, *, more: bool) -> None:
        status: int = start["status"]
        headers: list[tuple[bytes, bytes]] = list(start.get("headers", ()))
        if any(b"\r" in part or b"\n" in part for header in headers for part in header):
            raise RuntimeError("the application sent a header with a line break in it")
        length = next((int(value) for name, value in headers if name.lower() == b"content-length"), None)
        has_body = self._head.method != b"HEAD" and status not in _WITHOUT_BODY
        if length is None and not more and status not in _WITHOUT_BODY:
            length = len(body)
            headers.append((b"content-length", b"%d" % length))
        if not more:
            if has_body and length != len(body):
                raise RuntimeError(f"the application sent {len(body)} bytes of {length}")
            self._is_answered = True
            self._connection.answer(status, headers, body if has_body else b"")
            return
        self._is_in_chunks = has_body and length is None and not self._head.is_1_0
        if self._is_in_chunks:
            headers.append((b"transfer-encoding", b"chunked"))
        self._left = length if has_body else 0
        self._drops_body = not has_body
        self._keep_alive = self._connection.write_head(status, headers)
        self._go_on(body, more=more)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if not self._drops_body:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (self._left and not more):
                    raise RuntimeError("the application sent another number of bytes than its Content-Length says")
            elif self._is_in_chunks:
                body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
            if body:
                self._connection.write(body)
        if not more:
            self._is_answered = True
            self._changed.set()
            self._connection.end_answer(keep_alive=bool(self._keep_alive))


def _address(name: Any) -> tuple[str, int] | None:
    """Return the host and port of a socket's name in ASGI's form; None for a socket without a port."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
