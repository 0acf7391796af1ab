"""Whatever clients do: each valid request is answered once and in order, or its connection ends; nothing is left.

Hypothesis chooses what they do, over real sockets. `python -m tests.connections` does the same with
many more requests, to a service in processes of its own.
"""

import math
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from app.api.http1.connection import Connection as ServerConnection
from app.settings import Settings
from tests.api.sockets import TIMEOUT_S, Server
from tests.conftest import Load
from tests.connections.asked import MAX_HEADER_BYTES, MAX_UPLOAD_BYTES, Asked, Kind, Picture, Requests, cut, spoil
from tests.connections.dialogue import Dialogue

_RECEIVE_TIMEOUT_S = _KEEP_ALIVE_S = 2
_REQUEST_TIMEOUT_S = 30
_SETTLES_WITHIN_S = 10

chances = st.randoms(use_true_random=False)


class Tight(ServerConnection):
    """Has hardly any room for answers that are not read."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1024)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)


class Line:
    """The client's side of one connection. It never waits: what the service does not take stays in `unsent`."""

    def __init__(self, address: tuple[str, int], dialogue: Dialogue, name: str) -> None:
        self.dialogue = dialogue
        self.name = name
        self.number = 0
        self.rest = b""
        """Of a request that is to leave in part."""
        self.is_deaf = False
        self.is_done = False
        """Whether the client does nothing more but to read."""
        self.unsent = b""
        self._ends = False
        self.socket = socket.create_connection(address, timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self, data: bytes) -> None:
        self.unsent += data
        self.flush()

    def end(self) -> None:
        """Send nothing more after this."""
        self.is_done = self._ends = True
        self.flush()

    def flush(self) -> None:
        with suppress(BlockingIOError, ConnectionError):  # a connection that is lost shows when it is read
            while self.unsent and not self.dialogue.is_over:
                count = self.socket.send(self.unsent)
                self.dialogue.sent(self.unsent[:count])
                self.unsent = self.unsent[count:]
            if self._ends and not self.dialogue.is_over:
                self._ends = False
                self.dialogue.half_closes()
                with suppress(OSError):  # the service may have reset it
                    self.socket.shutdown(socket.SHUT_WR)

    def read(self) -> None:
        """Read all that has arrived."""
        while not self.dialogue.is_over:
            try:
                data = self.socket.recv(256 * 1024)
            except BlockingIOError:
                return
            except ConnectionError:
                self.dialogue.ends(reset=True)
                return
            if data:
                self.dialogue.receives(data)
            else:
                self.dialogue.ends(reset=False)

    def close(self, *, reset: bool = False) -> None:
        self.is_done = self.dialogue.is_over = True
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Service:
    """What all runs of the machine share."""

    def __init__(self, server: Server, requests: Requests) -> None:
        self.server = server
        self.requests = requests
        self.defects: list[dict[str, Any]] = []
        self.overloaded_until = -math.inf
        self._lag = server.catalogue.admission._lag
        server.on_loop(lambda loop: loop.set_exception_handler(lambda _, context: self.defects.append(context)))
        self._settle()
        self._files = _open_files()

    def overload(self, *, on: bool) -> None:
        """Have the service reject what it may, or take what comes."""
        admission = self.server.catalogue.admission

        def switch(_: object) -> None:
            admission.overloaded = on
            admission._lag = (lambda: 1.0) if on else self._lag

        self.server.on_loop(switch)
        if on:
            self.overloaded_until = math.inf
        elif self.overloaded_until == math.inf:
            self.overloaded_until = time.monotonic()

    def assert_nothing_is_left(self) -> None:
        """Wait for what takes a moment, and look."""
        self._settle()
        deadline = time.monotonic() + _SETTLES_WITHIN_S
        while _open_files() != self._files:
            assert time.monotonic() < deadline, f"{_open_files()} open files, not {self._files}"
            self.server.on_loop(lambda _: None)
        assert self.server.ask(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
        assert not self.defects

    def _settle(self) -> None:
        deadline = time.monotonic() + _SETTLES_WITHIN_S
        while any(left := self.server.on_loop(lambda _: self._left())):
            assert time.monotonic() < deadline, left

    def _left(self) -> list[int]:
        admission, limits = self.server.catalogue.admission, self.server.services.limits
        counts = [self.server.connections, self.server.tasks, self.server.waiting]
        counts += [admission.pending, admission.pending_bytes, len(admission.leases)]
        return counts + [len(clock) for clock in (limits.receiving, limits.idle, limits.unread, limits.lingering)]


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Clients(RuleBasedStateMachine):
    """Several clients, of which each does one thing at a time."""

    service: Service

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.silent: list[Line] = []

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        for _ in range(count):
            self.open()

    @rule()
    def open(self) -> None:
        dialogue = Dialogue(
            receive_timeout_s=_RECEIVE_TIMEOUT_S,
            keep_alive_s=_KEEP_ALIVE_S,
            request_timeout_s=_REQUEST_TIMEOUT_S,
            overloaded_until=lambda: self.service.overloaded_until,
        )
        self.lines.append(Line(self.service.server.address, dialogue, f"line-{len(self.lines)}"))

    @rule(rng=chances, count=st.integers(1, 5))
    def ask(self, rng: Random, count: int) -> None:
        line = self._any(rng)
        if line is not None:
            data = line.rest + b"".join(self._next(line, rng).data for _ in range(count))
            line.rest = b""
            for piece in cut(rng, data):
                line.send(piece)

    @rule(rng=chances)
    def send_a_large_body(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None:
            asked = (
                self._next(line, rng),
                self._next(line, rng, self.service.requests.large_body),
                self._next(line, rng),
            )
            line.send(line.rest + b"".join(request.data for request in asked))
            line.rest = b""

    @rule(rng=chances)
    def ask_in_part(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None:
            data = line.rest + self._next(line, rng).data
            size = rng.randrange(1, len(data))
            line.rest = data[size:]
            line.send(data[:size])

    @rule(rng=chances)
    def ask_for_much_and_do_not_read(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None and not line.rest:
            line.is_deaf = True
            line.dialogue.is_deaf()
            line.send(self._next(line, rng, self.service.requests.large_answer).data)

    @rule(rng=chances)
    def hear(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None:
            line.is_deaf = False
            line.read()

    @rule(rng=chances)
    def spoil(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None and not line.rest:
            head, end, body = spoil(rng, self._make(line, rng)).partition(b"\r\n\r\n")
            pieces = [head + end, *cut(rng, body)]
            if not line.unsent and not line.dialogue.is_over:
                line.dialogue.spoils()
                for piece in pieces[:4]:
                    line.send(piece)
                    self.service.server.turn()

    @rule(rng=chances)
    def end(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None and not rng.randrange(3):
            line.end()

    @rule(rng=chances, reset=st.booleans())
    def leave(self, rng: Random, *, reset: bool) -> None:
        line = self._any(rng)
        if line is not None and not rng.randrange(3):
            line.close(reset=reset)

    @rule(rng=chances)
    def say_nothing_more(self, rng: Random) -> None:
        line = self._any(rng)
        if line is not None and not self.silent and not rng.randrange(8):
            line.is_done = True
            self.silent.append(line)

    @rule(on=st.booleans())
    def overload(self, *, on: bool) -> None:
        self.service.overload(on=on)

    @rule()
    def turn(self) -> None:
        self.service.server.turn()
        self._look_at_all()

    def teardown(self) -> None:
        """Have each client finish, and wait for all that it is owed."""
        self.service.overload(on=False)
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while waiting := [line for line in self.lines if not line.dialogue.is_over]:
                for line in waiting:
                    line.is_deaf = False
                    line.flush()
                    if not line.is_done:
                        line.end()
                sending = [line.socket for line in waiting if line.unsent]
                select.select([line.socket for line in waiting], sending, [], 1)
                self._look_at_all()
                if time.monotonic() > deadline:
                    raise waiting[0].dialogue.violation("it neither answered nor closed")
        finally:
            for line in self.lines:
                line.close()
        self.service.assert_nothing_is_left()

    def _any(self, rng: Random) -> Line | None:
        lines = [line for line in self.lines if not line.is_done]
        return rng.choice(lines) if lines else None

    def _make(self, line: Line, rng: Random, kind: Kind | None = None) -> Asked:
        line.number += 1
        return (kind or self.service.requests.any)(rng, f"{line.name}-{line.number}")

    def _next(self, line: Line, rng: Random, kind: Kind | None = None) -> Asked:
        request = self._make(line, rng, kind)
        line.dialogue.ask(request)
        return request

    def _look_at_all(self) -> None:
        for line in self.lines:
            if not line.is_deaf:
                line.read()


Start = Callable[[type[ServerConnection], str], Service]


@pytest.fixture
def start(trained_store: Path, data_folder: Path, load: Load) -> Iterator[Start]:
    servers: list[Server] = []

    def start_service(protocol: type[ServerConnection], place: str) -> Service:
        given = Settings.load(
            model_store=trained_store,
            engine="openvino",
            workers=1,
            inference_place=place,
            max_pending=4,
            max_upload_bytes=MAX_UPLOAD_BYTES,
            max_header_bytes=MAX_HEADER_BYTES,
            receive_timeout_s=_RECEIVE_TIMEOUT_S,
            keep_alive_s=_KEEP_ALIVE_S,
            request_timeout_s=_REQUEST_TIMEOUT_S,
        )
        server = Server(given, load(given), protocol)
        servers.append(server.__enter__())
        return Service(server, Requests(_pictures(server, data_folder), "digits"))

    yield start_service
    for server in servers:
        server.__exit__()


def _pictures(server: Server, folder: Path) -> list[Picture]:
    pictures = []
    for name in ("1-00002.png", "7-00000.png"):
        data = (folder / name).read_bytes()
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(data)
        label = server.ask(head + data).body.split(b'"')[3].decode()
        pictures.append(Picture(data, label))
    return pictures


@pytest.mark.parametrize(("protocol", "place"), [(ServerConnection, "loop"), (Tight, "thread")])
def test_each_request_is_answered_once_and_in_order_and_nothing_is_left(
    start: Start, protocol: type[ServerConnection], place: str, pytestconfig: pytest.Config
) -> None:
    class Run(Clients):
        service = start(protocol, place)

    run_state_machine_as_test(
        Run,
        settings=settings(
            max_examples=pytestconfig.getoption("--connection-examples"),
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )
