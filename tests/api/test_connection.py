"""What a connection may do to the service: nothing but end itself. Over real sockets, both ways into the service."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.api.connection import LimitedProtocol
from app.api.fast_path import FastPathProtocol
from app.main import load_from
from app.settings import Settings
from tests.api.sockets import Answer, Server, request

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
both_ways = pytest.mark.parametrize("protocol", [FastPathProtocol, LimitedProtocol], ids=["fast", "long"])

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def settings_of(store: Path, **given: Any) -> Settings:
    return Settings(**{"model_store": store, "engine": "openvino", "workers": 1, "inference_place": "loop", **given})


@pytest.fixture
def start(trained_store: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start_server(protocol: type[LimitedProtocol] = FastPathProtocol, **given: Any) -> Server:
            settings = settings_of(trained_store, **given)
            return stack.enter_context(Server(settings, load_from(settings), protocol))

        yield start_server


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status
    body = json.loads(answer.body)
    assert body["code"] == code
    assert body["request_id"] == dict(answer.headers)["x-request-id"]
    assert ("connection", "close") in answer.headers


# Headers


@both_ways
@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.1\r\nX: %b" % (b"a" * 3000),
        b"POST /predict HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 3000),
        b"POST /predict HTTP/1.1\r\n" + b"a: b\r\n" * 700,
        b"POST /predict?%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 3000),
        b"POST /%b" % (b"a" * 3000),
    ],
    ids=["unfinished", "one header", "many headers", "query", "path"],
)
def test_a_head_that_is_too_long_is_431_and_the_end(start: Start, protocol: type[LimitedProtocol], head: bytes) -> None:
    server = start(protocol, max_header_bytes=2048)
    with server.open() as connection:
        assert_refused(connection.send(head).answer(), 431, "headers_too_large")
        assert connection.is_closed()
    server.turn()


@both_ways
def test_a_long_body_in_the_same_segment_is_no_long_head(
    start: Start, protocol: type[LimitedProtocol], seven: bytes
) -> None:
    server = start(protocol, max_header_bytes=256)
    assert server.ask(request(seven + b"x" * 10_000)).status == 200


def test_trailers_without_an_end_are_refused(start: Start, seven: bytes) -> None:
    server = start(max_header_bytes=2048)
    chunked = b"%x\r\n%b\r\n0\r\n" % (len(seven), seven)
    with server.open() as connection:
        connection.send(request(chunked, "Transfer-Encoding: chunked"))
        connection.send(b"trailer: more\r\n" * 1000)
        assert connection.answer().status in {400, 431}
        assert connection.is_closed()


def test_a_body_in_chunks_of_one_byte_is_a_body(start: Start, seven: bytes) -> None:
    server = start(max_header_bytes=256)
    chunks = b"".join(b"1\r\n%b\r\n" % seven[index : index + 1] for index in range(len(seven))) + b"0\r\n\r\n"
    assert server.ask(request(chunks, "Transfer-Encoding: chunked")).status == 200


@both_ways
@pytest.mark.parametrize(
    "data", [b"\0\0\0\0", b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_400_in_the_one_shape(start: Start, protocol: type[LimitedProtocol], data: bytes) -> None:
    with start(protocol).open() as connection:
        assert_refused(connection.send(data).answer(), 400, "malformed_request")
        assert connection.is_closed()


def test_garbage_behind_a_request_leaves_its_answer_whole(start: Start, seven: bytes) -> None:
    with start().open() as connection:
        connection.send(request(seven, query="?top_k=1") + b"\0\0\r\n\r\n")
        assert connection.answer().status == 200
        assert connection.is_closed()


def test_garbage_behind_pipelined_requests_leaves_their_answers_whole(start: Start, seven: bytes) -> None:
    with start().open() as connection:
        connection.send(LIVE + request(seven) + LIVE + b"\0\0\r\n\r\n")
        assert [connection.answer().status for _ in range(3)] == [200, 200, 200]
        assert connection.is_closed()


def test_an_upgrade_with_a_body_is_refused_and_one_without_is_ignored(start: Start, seven: bytes) -> None:
    server = start()
    with server.open() as connection:
        answer = connection.send(request(seven, "Connection: Upgrade", "Upgrade: h2c")).answer()
        assert_refused(answer, 400, "malformed_request")
    upgrade = LIVE.replace(b"Host: a", b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c")
    assert server.ask(upgrade).status == 200


# Slow senders


@both_ways
@pytest.mark.parametrize("sent", [10, 60, -10], ids=["request line", "headers", "body"])
def test_a_slow_sender_costs_its_own_connection_only(
    start: Start, protocol: type[LimitedProtocol], seven: bytes, sent: int
) -> None:
    server = start(protocol, receive_timeout_s=0.3)
    with server.open() as slow:
        slow.send(request(seven)[:sent])
        assert server.ask(request(seven)).status == 200
        assert_refused(slow.answer(), 408, "receive_timeout")
        assert slow.is_closed()
    server.turn()
    admission = server.catalogue.admission
    assert (admission.pending, admission.pending_bytes) == (0, 0)


@both_ways
def test_a_sender_that_drips_is_slow_too(start: Start, protocol: type[LimitedProtocol], seven: bytes) -> None:
    server = start(protocol, receive_timeout_s=0.5)
    with server.open() as slow:
        slow.send(request(seven)[:60])
        while not slow.has_answer(within_s=0.02):
            slow.send(b"a")
        assert_refused(slow.answer(), 408, "receive_timeout")


def test_a_client_that_connects_and_says_nothing_is_let_go(start: Start) -> None:
    with start(receive_timeout_s=0.3).open() as silent:
        assert silent.is_closed()


def test_a_slow_sender_whose_request_is_refused_early_is_let_go(start: Start) -> None:
    server = start(receive_timeout_s=0.5, max_upload_bytes=1000)
    with server.open() as slow:
        slow.send(request(b"x" * 2000, "Content-Length: 100000"))
        assert slow.answer().status == 413
        assert slow.is_closed()


def test_a_slow_sender_holds_bytes_but_no_picture(start: Start) -> None:
    server = start(receive_timeout_s=30)
    with server.open() as slow:
        slow.send(request(b"x" * 70_000, "Content-Length: 100000"))
        server.turn()
        admission = server.catalogue.admission
        while not admission.pending_bytes:
            server.turn()
        assert admission.pending == 0
    while admission.pending_bytes:
        server.turn()


def test_bodies_that_arrive_are_bounded_together(start: Start) -> None:
    server = start(max_pending_bytes=100_000)
    large = request(b"x" * 80_000, "Content-Length: 90000")
    with server.open() as first:
        first.send(large)
        while server.catalogue.admission.pending_bytes < 80_000:
            server.turn()
        refused = server.ask(large)
        assert refused.status == 503
        assert json.loads(refused.body)["code"] == "overloaded"
        assert "retry-after" in dict(refused.headers)


# Idle connections, and answers that nobody reads


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(start: Start, seven: bytes) -> None:
    server = start(keep_alive_s=1)
    with server.open() as idle, server.open() as busy:
        idle.send(request(seven)).answer()
        while server.connections == 2:
            assert busy.send(request(seven)).answer().status == 200
        assert idle.is_closed()
        assert busy.send(request(seven)).answer().status == 200


def test_a_client_that_does_not_read_its_answers_is_let_go(start: Start) -> None:
    server = start(receive_timeout_s=0.5, keep_alive_s=1)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(server.address)
        deaf.settimeout(10)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"
        with contextlib.suppress(ConnectionError):  # how this ends
            while True:
                deaf.sendall(ask * 100)
    server.turn()


# Deadlines of the client's


@both_ways
@pytest.mark.parametrize("asked", ["0", "-1", "soon", "nan", "1,5", "\xe9"])
def test_a_timeout_that_is_none_is_400(start: Start, protocol: type[LimitedProtocol], seven: bytes, asked: str) -> None:
    data = request(seven).replace(b"Host: a", b"Host: a\r\nX-Request-Timeout: %b" % asked.encode("latin-1"))
    answer = start(protocol).ask(data)
    assert answer.status == 400
    assert "X-Request-Timeout" in json.loads(answer.body)["error"]


@both_ways
@pytest.mark.parametrize(("asked", "status"), [("1e-9", 504), ("5", 200), ("inf", 200), ("0.5e1", 200)])
def test_a_client_may_ask_for_less_time(
    start: Start, protocol: type[LimitedProtocol], seven: bytes, asked: str, status: int
) -> None:
    server = start(protocol)
    assert server.ask(request(seven, f"X-Request-Timeout: {asked}")).status == status
    assert server.catalogue.admission.pending == 0


@both_ways
def test_a_client_may_not_ask_for_more_time(start: Start, protocol: type[LimitedProtocol], seven: bytes) -> None:
    server = start(protocol, request_timeout_s=1e-9)
    assert server.ask(request(seven, "X-Request-Timeout: 60")).status == 504


# Ids


@both_ways
def test_every_answer_carries_the_id_of_its_request(
    start: Start, protocol: type[LimitedProtocol], seven: bytes
) -> None:
    server = start(protocol)
    given = request(seven).replace(b"same-for-both", b"my-own")
    assert dict(server.ask(given).headers)["x-request-id"] == "my-own"
    made = {dict(server.ask(data.replace(b"X-Request-ID", b"X-Other")).headers)["x-request-id"] for data in [given] * 5}
    assert len(made) == 5


def test_a_worker_that_stops_says_so_in_every_answer(start: Start, seven: bytes) -> None:
    server = start()
    server.lifecycle.stopping = True
    for data in (request(seven), request(b"junk"), LIVE):
        with server.open() as connection:
            assert ("connection", "close") in connection.send(data).answer().headers
            assert connection.is_closed()
