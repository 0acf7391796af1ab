"""Workers that share a listener share its connections."""

import asyncio
import errno
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from app.process.listener import Listener, OpenConnections, SharingLoop


class Holding(asyncio.Protocol):
    """A worker's side of a connection: it is held open, and says hello."""

    def __init__(self, held: list[Any]) -> None:
        self._held = held

    def connection_made(self, transport: Any) -> None:
        self._held.append(transport)
        transport.write(b"hello")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


async def connect(listener: socket.socket, count: int) -> list[asyncio.StreamWriter]:
    opened = await asyncio.gather(*(asyncio.open_connection(*listener.getsockname()) for _ in range(count)))
    for reader, _ in opened:
        assert await asyncio.wait_for(reader.readexactly(5), 30) == b"hello"
    return [writer for _, writer in opened]


async def hang_up(clients: list[asyncio.StreamWriter]) -> None:
    for client in clients:
        client.close()
        await client.wait_closed()


def test_two_workers_get_about_as_many_connections_of_a_burst(listener: socket.socket) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        held: tuple[list[Any], list[Any]] = ([], [])
        # Two listeners in one loop stand for two workers: each sees the same queue of the kernel.
        twin = listener.dup()
        servers = [
            await loop.create_server(lambda mine=mine: Holding(mine), sock=sock, backlog=2048)  # type: ignore[misc]
            for sock, mine in zip((listener, twin), held, strict=True)
        ]
        clients = await connect(listener, 200)
        assert len(held[0]) + len(held[1]) == 200
        assert min(len(each) for each in held) >= 60
        for server in servers:
            server.close()
            await server.wait_closed()
        await hang_up(clients)
        twin.close()

    with asyncio.Runner(loop_factory=SharingLoop) as runner:
        runner.run(serve())


def test_a_listener_that_is_closed_takes_no_more(listener: socket.socket) -> None:
    async def serve() -> None:
        held: list[Any] = []
        server = await asyncio.get_running_loop().create_server(lambda: Holding(held), sock=listener, backlog=16)
        clients = await connect(listener, 1)
        server.close()
        await server.wait_closed()
        with socket.create_connection(listener.getsockname(), timeout=5):  # waits in the kernel's queue
            await asyncio.sleep(0.01)
        assert len(held) == 1
        await hang_up(clients)

    with asyncio.Runner(loop_factory=SharingLoop) as runner:
        runner.run(serve())


class Counted(Holding):
    """One that adds itself to the worker's connections, as uvicorn's protocol does."""

    def __init__(self, held: list[Any], connections: OpenConnections) -> None:
        super().__init__(held)
        self._connections = connections

    def connection_made(self, transport: Any) -> None:
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connections.discard(self)


def test_a_connection_beyond_the_limit_is_accepted_when_another_closes(listener: socket.socket) -> None:
    connections = OpenConnections()
    counts: list[int] = []
    connections.watch(counts.append)

    async def serve() -> None:
        held: list[Any] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Counted(held, connections), sock=listener, backlog=16)
        first, *others = await connect(listener, 3)
        reader, late = await asyncio.open_connection(*listener.getsockname())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(5), 0.05)
        await hang_up([first])
        assert await asyncio.wait_for(reader.readexactly(5), 30) == b"hello"
        assert max(counts) == 3
        await hang_up([*others, late])
        await asyncio.wait_for(connections.wait_empty(), 30)
        server.close()

    with asyncio.Runner(loop_factory=lambda: SharingLoop(connections, most=3)) as runner:
        runner.run(serve())


def test_what_waits_when_the_last_listener_closes_is_taken_and_nothing_new_is(listener: socket.socket) -> None:
    async def serve() -> None:
        held: list[Any] = []
        loop = asyncio.get_running_loop()
        server = Listener(loop, lambda: Holding(held), listener, 64, connections=OpenConnections())
        # The loop does not turn between these and the close, so all of them are in the kernel's queue.
        waiting = [socket.create_connection(listener.getsockname(), timeout=30) for _ in range(20)]
        server.close_for_all()
        if sys.platform == "linux":
            with socket.socket() as late:
                late.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    late.connect(listener.getsockname())
        await server.wait_closed()
        listener.close()
        for client in waiting:
            assert client.recv(5) == b"hello"
            client.close()
        assert len(held) == 20
        for transport in held:
            transport.close()

    with asyncio.Runner(loop_factory=SharingLoop) as runner:
        runner.run(serve())


class Exhausted:
    """A listening socket in a process without a file descriptor to spare, once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.rejections = 0

    def accept(self) -> Any:
        if not self.rejections:
            self.rejections += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_connections_wait_while_there_are_no_file_descriptors(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.process.listener._EXHAUSTED_S", 0.01)

    async def serve() -> None:
        held: list[Any] = []
        exhausted: Any = Exhausted(listener)
        server = Listener(
            asyncio.get_running_loop(), lambda: Holding(held), exhausted, 16, connections=OpenConnections()
        )
        clients = await connect(listener, 3)
        assert (exhausted.rejections, len(held)) == (1, 3)
        server.close()
        await hang_up(clients)

    with asyncio.Runner(loop_factory=SharingLoop) as runner:
        runner.run(serve())
