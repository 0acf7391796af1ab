"""An event loop for workers that share a listener, so that they share its connections fairly.

uvloop takes all connections that wait at once, so whichever worker wakes first gets most of a burst: of 256, one took
82 and the other 174. Keep-alive makes that last, and the one with more is overloaded while the other idles. Here a
worker takes a few, and leaves the next to the others for a moment.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import structlog
import uvloop

_AT_ONCE = 4
_PAUSE_S = 0.001
"""Long enough for another worker to wake up. Four in a millisecond are more than a worker can serve."""
_EXHAUSTED_S = 0.5
"""How long to leave new connections in the kernel's queue where the process has no file descriptor left for one."""

_log = structlog.stdlib.get_logger(__name__)


class SharingLoop(uvloop.Loop):
    """uvicorn's setting `loop`: uvloop, but for the listeners of `create_server`."""

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *, sock: socket.socket, backlog: int, **_: Any
    ) -> "Listener":
        return Listener(self, protocol_factory, sock, backlog)


class Listener:
    """What uvicorn needs of asyncio.Server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Callable[[], asyncio.Protocol],
        sock: socket.socket,
        backlog: int,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._sock = sock
        self._opening: set[asyncio.Task[Any]] = set()
        self._resume: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        loop.add_reader(sock, self._accept)

    def close(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock)

    async def wait_closed(self) -> None:
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was quicker, or the client is gone again
            except OSError as exc:
                if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                _log.error("cannot take new connections for now", reason=exc.strerror)
                self._pause(_EXHAUSTED_S)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol_factory, connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._pause(_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._resume = self._loop.call_later(seconds, self._loop.add_reader, self._sock, self._accept)
