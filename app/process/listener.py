"""An event loop for workers that share a listener: each accepts its fair share of the connections, within its limit.
uvloop accepts all queued connections at once, so the worker that wakes first gets most of a burst: of 256, one worker
got 82 and the other 174. Keep-alive makes that last, and one worker is overloaded while the other idles. Here a worker
accepts a few, and pauses to leave the next to others. Connections beyond its limit stay in the kernel's queue.
"""

import asyncio
import ctypes
import errno
import math
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
import uvloop

from app.waiting import wait_all

_AT_ONCE = 4
_PAUSE_S = 0.001
"""Pause long enough for another worker to wake up. Four in a millisecond are more than a worker can serve."""
_EXHAUSTED_S = 0.5
"""Pause this long if the process has no file descriptor left for a new connection."""
_SAID_AGAIN_AFTER_S = 60.0

_log = structlog.stdlib.get_logger(__name__)


class OpenConnections(set[Any]):
    """uvicorn's set of a worker's open connections; it notifies when it changes."""

    def __init__(self) -> None:
        super().__init__()
        self._watchers: list[Callable[[int], None]] = []

    def watch(self, watcher: Callable[[int], None]) -> None:
        """Call `watcher` with the number of connections whenever it changes."""
        self._watchers.append(watcher)

    def add(self, connection: Any) -> None:
        super().add(connection)
        self._changed()

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        self._changed()

    async def wait_empty(self) -> None:
        """Wait until there is none."""
        if self:
            empty = asyncio.get_running_loop().create_future()
            self.watch(lambda count: None if count or empty.done() else empty.set_result(None))
            await empty

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher(len(self))


class SharingLoop(uvloop.Loop):
    """uvloop with listeners of its own in `create_server`. Their protocols add themselves to `connections`."""

    def __init__(self, connections: OpenConnections | None = None, most: float = math.inf) -> None:
        super().__init__()
        self._connections = OpenConnections() if connections is None else connections
        self._most = most

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *, sock: socket.socket, backlog: int, **_: Any
    ) -> "Listener":
        return Listener(self, protocol_factory, sock, backlog, connections=self._connections, most=self._most)


class Listener:
    """The part of asyncio.Server that uvicorn uses."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Callable[[], asyncio.Protocol],
        sock: socket.socket,
        backlog: int,
        *,
        connections: OpenConnections,
        most: float = math.inf,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._sock = sock
        self._connections = connections
        self._most = most
        self._opening: set[asyncio.Task[Any]] = set()
        self._resume: asyncio.TimerHandle | None = None  # while it pauses
        self._is_full = False
        self._said_full_at = -math.inf
        self._closed = False
        sock.setblocking(False)
        sock.listen(backlog)
        loop.add_reader(sock, self._accept)
        connections.watch(self._take_more_where_there_is_room)

    def close(self) -> None:
        self._closed = True
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock)

    def close_for_all(self) -> None:
        """Accept all queued connections, and close the listener for all processes.

        Closing the last copy of a listener resets the connections in its queue, although their clients consider them
        open and may have sent requests. So no connection may be added between the last accept and the close.
        """
        with suppress(OSError):  # no such filter on this system: a connection that arrives now may be reset
            _reject_all(self._sock)
        while not self._closed and not self._has_no_room() and self._take_one():
            pass
        self.close()

    async def wait_closed(self) -> None:
        """Wait until each accepted socket is a connection."""
        await wait_all(self._opening)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._has_no_room():
                self._wait_for_room()
                return
            if not self._take_one():
                return
        self._pause(_PAUSE_S)

    def _take_one(self) -> bool:
        try:
            connection, _address = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker accepted it, or the client has gone
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            _log.error("cannot take new connections for now", reason=exc.strerror)
            self._pause(_EXHAUSTED_S)
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol_factory, connection))
        self._opening.add(task)
        task.add_done_callback(self._opened)
        return True

    def _opened(self, task: asyncio.Task[Any]) -> None:
        self._opening.discard(task)
        self._take_more_where_there_is_room(0)  # it may have failed, and made room

    def _has_no_room(self) -> bool:
        return len(self._connections) + len(self._opening) >= self._most

    def _wait_for_room(self) -> None:
        self._is_full = True
        self._loop.remove_reader(self._sock)
        if self._loop.time() - self._said_full_at >= _SAID_AGAIN_AFTER_S:
            self._said_full_at = self._loop.time()
            reason = f"{self._most:.0f} are open, as many as IMAGECLASS_MAX_CONNECTIONS allows"
            _log.warning("new connections wait", reason=reason)

    def _take_more_where_there_is_room(self, _count: int) -> None:
        if self._is_full and not self._has_no_room():
            self._is_full = False
            self._listen_again()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._resume = self._loop.call_later(seconds, self._listen_again)

    def _listen_again(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock, self._accept)


def _reject_all(listener: socket.socket) -> None:
    """Have the kernel drop all packets to a listener, in any process, by a packet filter."""
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "there are no such filters")
    let_none_pass = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF_RET | BPF_K, of 0 bytes
    program = struct.pack("HP", 1, ctypes.addressof(let_none_pass))
    listener.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER, which `socket` does not define
