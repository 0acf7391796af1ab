"""A server that behaves as a test says: it stands for a replica, a canary or a shadow."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["StandIn"], int | None]
"""What it does with a request: the status that it answers with, or None to close the connection without an answer."""


class StandIn(ThreadingHTTPServer):
    """Ready all along, whatever it does with requests for an answer."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], behaviour: Behaviour, name: str) -> None:
        self.behaviour = behaviour
        self.asked = 0
        self.body = b'{"name":"%s"}' % name.encode()
        self.ended = threading.Event()
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are gone are no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        status = self.server.behaviour(self.server)
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self._answer(status)

    def _answer(self, status: int) -> None:
        body = self.server.body
        head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)


def well(_: StandIn) -> int:
    return 200


def badly(_: StandIn) -> int:
    return 500


def sometimes_badly(server: StandIn) -> int:
    """Fail one in four."""
    return 500 if server.asked % 4 == 0 else 200


def not_at_all(_: StandIn) -> None:
    return None


def never(server: StandIn) -> int:
    server.ended.wait(60)
    return 200


@contextmanager
def stand_in(address: tuple[str, int], behaviour: Behaviour = well, name: str = "stand-in") -> Iterator[StandIn]:
    with StandIn(address, behaviour, name) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
