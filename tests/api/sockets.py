"""A real uvicorn with the service's own protocol in a thread, and a client's side of its connections, byte by byte."""

import asyncio
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import uvicorn

from app.api.http1.connection import Connection as ServerConnection
from app.api.http1.connection import Services
from app.api.lifecycle import Lifecycle
from app.main import create_app
from app.process.http_server.server import uvicorn_config
from app.serving.catalogue import Catalogue
from app.serving.versions import LoadedStore
from app.settings import Settings

if TYPE_CHECKING:
    from app.tracing.otlp import Exporter

TIMEOUT_S = 60

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def lasting(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """All of it but the date, and how long it took."""
        headers = [(name, "" if name == "server-timing" else value) for name, value in self.headers if name != "date"]
        return self.status, headers, self.body


class Connection:
    """A client's side of one connection, byte by byte."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, data: bytes) -> Self:
        self._socket.sendall(data)
        return self

    def end(self) -> Self:
        """Say that nothing more is sent. Answers can still be read."""
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Go away so that the service is told at once."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.__exit__()

    def answer(self, *, has_body: bool = True) -> Answer:
        status = self._stream.readline().split(b" ", 2)
        assert status[0] == b"HTTP/1.1", status
        headers = []
        while line := self._stream.readline().rstrip(b"\r\n").decode("latin-1"):
            name, _, value = line.partition(": ")
            headers.append((name, value))
        length = int(dict(headers).get("content-length", 0)) if has_body else 0
        return Answer(int(status[1]), headers, self._stream.read(length))

    def has_answer(self, *, within_s: float) -> bool:
        return bool(select.select([self._socket], [], [], within_s)[0])

    def is_closed(self) -> bool:
        return self._stream.read(1) == b""


class LongWay(ServerConnection):
    """Answers every request by the application."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.services = replace(
            self.services,
            fast_path=lambda _connection, _head: None,
            overloaded=lambda: False,
            reject_early=lambda _connection, _head: False,
        )


class Server:
    """The service's own uvicorn in a thread, with a protocol of the test's choice."""

    def __init__(
        self,
        settings: Settings,
        loaded: LoadedStore,
        protocol: type[ServerConnection],
        exporter: "Exporter | None" = None,
    ) -> None:
        app = create_app(settings, loaded, exporter=exporter)
        self.catalogue: Catalogue = app.state.inference.catalogue
        config = uvicorn_config(settings, app)
        config.http = protocol
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def __enter__(self) -> Self:
        self._thread.start()
        self.turn()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()

    def stop(self) -> None:
        """Do what SIGTERM does."""
        self._server.should_exit = True

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        self._listener.close()

    @property
    def services(self) -> Services:
        services: Services = self._server.lifespan.state["connections"]
        return services

    @property
    def lifecycle(self) -> Lifecycle:
        return self.services.lifecycle

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    @property
    def tasks(self) -> int:
        """How many answer requests."""
        return len(self._server.server_state.tasks)

    @property
    def waiting(self) -> int:
        return self.catalogue.get()._batcher.waiting

    def open(self) -> Connection:
        return Connection(self.address)

    def ask(self, data: bytes) -> Answer:
        with self.open() as connection:
            return connection.send(data).answer()

    def on_loop(self, function: Callable[[asyncio.AbstractEventLoop], T]) -> T:
        """Return what the function returns on the service's event loop."""
        loop = self._server.servers[0].get_loop()

        async def call() -> T:
            return function(loop)

        return asyncio.run_coroutine_threadsafe(call(), loop).result(TIMEOUT_S)

    def turn(self) -> None:
        """Return when the event loop has seen what was sent before."""
        for _ in range(2):
            assert self.ask(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").status == 200


def request(
    body: bytes = b"",
    *headers: str,
    path: str = "/predict",
    query: str = "",
    method: str = "POST",
    content_type: str | None = "image/png",
) -> bytes:
    lines = [f"{method} {path}{query} HTTP/1.1", "Host: a", "X-Request-ID: same-for-both", *headers]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def form(picture: bytes, field: str = "file") -> bytes:
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"; filename="7.png"\r\n\r\n'
    return head.encode() + picture + b"\r\n--xyz--\r\n"


FORM = "multipart/form-data; boundary=xyz"
