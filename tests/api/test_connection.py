"""What a connection may do to the service: nothing but end itself. Over real sockets, both ways into the service."""

import contextlib
import json
import socket
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.api.http1.connection import Connection as ServerConnection
from app.settings import Settings
from tests.api.sockets import Answer, LongWay, Server, request
from tests.conftest import Load

LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
both_ways = pytest.mark.parametrize("protocol", [ServerConnection, LongWay], ids=["fast", "long"])

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def settings_of(store: Path, **given: Any) -> Settings:
    return Settings(**{"model_store": store, "engine": "openvino", "workers": 1, "inference_place": "loop", **given})


@pytest.fixture(scope="module")
def start(trained_store: Path, load: Load) -> Iterator[Start]:
    """Return the function that starts a service, or returns the one that another test has started just so."""
    running: dict[Hashable, Server] = {}
    with ExitStack() as stack:

        def start_server(protocol: type[ServerConnection] = ServerConnection, **given: Any) -> Server:
            key = protocol, tuple(sorted(given.items()))
            if key not in running:
                settings = settings_of(trained_store, **given)
                running[key] = stack.enter_context(Server(settings, load(settings), protocol))
            return running[key]

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
def test_a_head_that_is_too_long_is_431_and_the_end(
    start: Start, protocol: type[ServerConnection], head: bytes
) -> None:
    server = start(protocol, max_header_bytes=2048)
    with server.open() as connection:
        assert_refused(connection.send(head).answer(), 431, "headers_too_large")
        assert connection.is_closed()
    server.turn()


@both_ways
def test_a_long_body_in_the_same_segment_is_no_long_head(
    start: Start, protocol: type[ServerConnection], seven: bytes
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
@pytest.mark.parametrize("data", [b"\0\0\0\0", b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_what_is_not_http_is_400_in_the_one_shape(start: Start, protocol: type[ServerConnection], data: bytes) -> None:
    with start(protocol).open() as connection:
        assert_refused(connection.send(data).answer(), 400, "malformed_request")
        assert connection.is_closed()


def test_garbage_behind_a_request_leaves_its_answer_whole(start: Start, seven: bytes) -> None:
    with start().open() as connection:
        connection.send(request(seven, query="?top_k=1") + b"\0\0\r\n\r\n")
        assert connection.answer().status == 200
        assert_refused(connection.answer(), 400, "malformed_request")
        assert connection.is_closed()


def test_garbage_behind_pipelined_requests_leaves_their_answers_whole(start: Start, seven: bytes) -> None:
    with start().open() as connection:
        connection.send(LIVE + request(seven) + LIVE + b"\0\0\r\n\r\n")
        assert [connection.answer().status for _ in range(4)] == [200, 200, 200, 400]
        assert connection.is_closed()


def test_garbage_behind_an_answer_in_pieces_is_told(start: Start) -> None:
    with start().open() as connection:
        assert connection.send(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n").answer().status == 200
        assert_refused(connection.send(b"\0\0\r\n\r\n").answer(), 400, "malformed_request")
        assert connection.is_closed()


def test_a_body_that_breaks_after_its_answer_gets_no_second_one(start: Start) -> None:
    server = start()
    with server.open() as connection:
        connection.send(b"POST /nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.answer().status == 404
        assert connection.send(b"no size\r\n").is_closed()


@both_ways
def test_an_upgrade_is_ignored(start: Start, protocol: type[ServerConnection], seven: bytes) -> None:
    server = start(protocol)
    upgrade = "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(seven), seven)
    with server.open() as connection:
        assert connection.send(request(seven, *upgrade)).answer().status == 200
        assert connection.send(request(chunked, *upgrade, "Transfer-Encoding: chunked")).answer().status == 200
        asked = LIVE.replace(b"Host: a", b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket")
        assert connection.send(asked).answer().status == 200
        assert connection.send(request(seven)).answer().status == 200


# Versions, hosts, targets and codings


@both_ways
@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/9.9"])
def test_another_version_is_505(start: Start, protocol: type[ServerConnection], version: str) -> None:
    with start(protocol).open() as connection:
        connection.send(LIVE.replace(b"HTTP/1.1", version.encode()))
        assert_refused(connection.answer(), 505, "unsupported_http_version")
        assert connection.is_closed()


def test_http_2_with_prior_knowledge_is_505(start: Start) -> None:
    with start().open() as connection:
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x0c\x04\0\0\0\0\0")
        assert_refused(connection.answer(), 505, "unsupported_http_version")
        assert connection.is_closed()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live\r\n\r\n",
        b"GET  /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health/live HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET /health/live RTSP/1.0\r\nHost: a\r\n\r\n",
        b"GET /health/live HTTP/1.1\nHost: a\n\n",
        b"GET /health/live HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET /health/live HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: u@a\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a:port\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET http://x:/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:///health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://u@x/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://x/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_head_that_is_not_valid_is_400_and_the_end_whatever_came_before(
    start: Start, seven: bytes, head: bytes
) -> None:
    server = start()
    for before in (b"", LIVE, request(seven), LIVE + request(seven)):
        with server.open() as connection:
            connection.send(before + head)
            for _ in range(before.count(b"Host: a")):
                assert connection.answer().status == 200
            assert_refused(connection.answer(), 400, "malformed_request")
            assert connection.is_closed()
    server.turn()
    assert server.catalogue.admission.pending == 0
    with server.open() as connection:  # and the same after an answer has been read
        assert connection.send(request(seven)).answer().status == 200
        assert_refused(connection.send(head).answer(), 400, "malformed_request")


@pytest.mark.parametrize("coding", ["gzip, chunked", "deflate, chunked", "identity, chunked"])
def test_a_transfer_coding_that_is_not_decoded_is_501(start: Start, seven: bytes, coding: str) -> None:
    with start().open() as connection:
        connection.send(request(b"0\r\n\r\n", f"Transfer-Encoding: {coding}"))
        assert_refused(connection.answer(), 501, "unsupported_transfer_coding")
        assert connection.is_closed()


@pytest.mark.parametrize(
    "line",
    [
        "GET /health/live HTTP/1.0\r\n",
        "GET /health/live HTTP/1.1\r\nHost: a_b.c-d:8000\r\n",
        "GET /health/live HTTP/1.1\r\nHost: [::1]:8000\r\n",
        "GET /health/live HTTP/1.1\r\nHost:\r\n",
        "GET http://a:80/health/live?x=1 HTTP/1.1\r\nHost: b\r\n",
        "GET HTTP://a/health/live HTTP/1.1\r\nHost: b\r\n",
        "\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n",
        "GET /health/live HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n",
    ],
)
def test_a_head_that_is_valid_though_rare_is_answered(start: Start, line: str) -> None:
    server = start()
    assert server.ask(line.encode() + b"\r\n").status == 200
    with server.open() as connection:
        for byte in line.encode() + b"\r\n":
            connection.send(bytes([byte]))
        assert connection.answer().status == 200


def test_blanks_around_the_value_of_a_header_are_not_part_of_it(start: Start, seven: bytes) -> None:
    data = request(seven).replace(b"X-Request-ID: same-for-both", b"X-Request-ID:\t my-own \t")
    assert dict(start().ask(data).headers)["x-request-id"] == "my-own"


def test_the_host_of_an_absolute_target_counts_and_not_that_of_the_header(start: Start) -> None:
    server = start(allowed_hosts="good")
    assert server.ask(b"GET http://good/models HTTP/1.1\r\nHost: bad\r\n\r\n").status == 200
    assert server.ask(b"GET http://bad/models HTTP/1.1\r\nHost: good\r\n\r\n").status == 400


@pytest.mark.parametrize("path", ["/health", "/health/live", "/models", "/metrics", "/openapi.json", "/docs", "/v2"])
def test_head_gets_what_get_does_but_the_body(start: Start, path: str) -> None:
    server = start()
    with server.open() as connection:
        connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        got = connection.answer()
        connection.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        asked = connection.answer(has_body=False)
        assert asked.status == got.status == 200
        assert [name for name, _ in asked.headers] == [name for name, _ in got.headers]
        assert dict(asked.headers)["content-type"] == dict(got.headers)["content-type"]
        assert connection.send(LIVE).answer().status == 200  # nothing of a body came between


def test_a_path_that_takes_get_says_that_it_takes_head(start: Start) -> None:
    refused = start().ask(b"PUT /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (refused.status, dict(refused.headers)["allow"]) == (405, "GET, HEAD")


def test_options_for_the_whole_server_says_which_methods_there_are(start: Start) -> None:
    answer = start().ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, dict(answer.headers)["allow"], answer.body) == (200, "GET, HEAD, OPTIONS, POST", b"")


# Limits and clocks of one request, not of a segment


def test_a_long_head_behind_another_request_is_431(start: Start, seven: bytes) -> None:
    server = start(max_header_bytes=2048)
    long = LIVE.replace(b"Host: a", b"Host: a\r\nX: %b" % (b"a" * 3000))
    for before in (LIVE, request(seven)):
        with server.open() as connection:
            connection.send(before + long)
            assert connection.answer().status == 200
            assert_refused(connection.answer(), 431, "headers_too_large")
            assert connection.is_closed()


def test_many_short_heads_in_one_segment_are_no_long_head(start: Start) -> None:
    with start(max_header_bytes=256).open() as connection:
        connection.send(LIVE * 50)
        assert [connection.answer().status for _ in range(50)] == [200] * 50


@pytest.mark.parametrize(
    "chunked", [b"5;%b\r\n" % (b"a" * 5000), b"5" + b"0" * 5000, b"5\r\nhello\r\n0\r\nX: %b\r\n\r\n" % (b"a" * 5000)]
)
def test_long_chunk_extensions_and_trailers_are_the_end(start: Start, chunked: bytes) -> None:
    with start(max_header_bytes=2048).open() as connection:
        connection.send(request(chunked, "Transfer-Encoding: chunked"))
        assert connection.answer().status in {400, 431}
        assert connection.is_closed()


def test_a_client_that_is_always_half_a_request_ahead_is_not_slow(start: Start) -> None:
    server = start(receive_timeout_s=0.5, keep_alive_s=1)
    half = len(LIVE) // 2
    with server.open() as eager, server.open() as timer:
        eager.send(LIVE[:half])
        while not timer.has_answer(within_s=0.01):  # until the service closes the silent one, after its 0.5 s
            eager.send(LIVE[half:] + LIVE[:half])
            assert eager.answer().status == 200
        eager.send(LIVE[half:])
        assert eager.answer().status == 200


@pytest.mark.parametrize("empty", [b"\r\n", b"\r", b"\r\n\r\n"])
def test_empty_lines_keep_no_connection_open(start: Start, empty: bytes) -> None:
    server = start(receive_timeout_s=0.5, keep_alive_s=1)
    with server.open() as new, server.open() as kept:
        new.send(empty)
        assert kept.send(LIVE).answer().status == 200
        kept.send(empty)
        assert new.is_closed()
        while not kept.has_answer(within_s=0.05):
            kept.send(empty[:0] if empty == b"\r" else b"\r\n")
        assert kept.is_closed()


def test_without_keep_alive_every_answer_says_that_it_closes(start: Start, seven: bytes) -> None:
    server = start(keep_alive_s=0)
    for data in (LIVE, request(seven), request(b"junk")):
        with server.open() as connection:
            assert ("connection", "close") in connection.send(data).answer().headers
            assert connection.is_closed()


# Bodies that are not wanted


@both_ways
@pytest.mark.parametrize("closing", ["Connection: close", "HTTP/1.0"])
def test_an_early_answer_to_a_large_upload_arrives_whole(
    start: Start, protocol: type[ServerConnection], closing: str
) -> None:
    server = start(protocol, max_upload_bytes=1000)
    size = 20_000_000
    data = request(b"", f"Content-Length: {size}", *([closing] if ":" in closing else []))
    if ":" not in closing:
        data = data.replace(b"HTTP/1.1", closing.encode())
    with server.open() as connection:
        connection.send(data)
        connection.send(bytes(size))  # all of it, without a look at what comes back
        assert connection.answer().status == 413
        assert connection.is_closed()


def test_a_body_that_is_refused_before_it_is_asked_for_is_not_the_next_request(start: Start) -> None:
    with start(max_upload_bytes=1000).open() as connection:
        connection.send(request(b"", "Content-Length: 5000", "Expect: 100-continue"))
        assert_refused(connection.answer(), 413, "upload_too_large")
        assert connection.is_closed()


def test_an_early_answer_on_a_lasting_connection_is_followed_by_others(start: Start) -> None:
    with start(max_upload_bytes=1000).open() as connection:
        connection.send(request(b"", "Content-Length: 500000"))
        assert connection.answer().status == 413
        connection.send(bytes(500_000) + LIVE)
        assert connection.answer().status == 200


@pytest.mark.parametrize("size", [200_000, 900_000])  # one comes in a single read
def test_a_large_body_that_is_sent_ahead_is_read_to_its_end_after_its_early_answer(start: Start, size: int) -> None:
    large = b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    with start().open() as connection:
        connection.send(LIVE + large + bytes(size) + LIVE)
        assert [connection.answer().status for _ in range(3)] == [200, 404, 200]


class ReadsLate(ServerConnection):
    """Its client reads the 100 only after it has sent more."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if data.startswith(b"HTTP/1.1 100 "):
            self.pause_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.reads_answers:
            self.resume_writing()


@pytest.mark.parametrize("ends", [False, True])
def test_a_body_that_comes_before_its_client_reads_is_whole(start: Start, seven: bytes, *, ends: bool) -> None:
    with start(ReadsLate).open() as connection:
        connection.send(request(seven, "Expect: 100-continue").removesuffix(seven))
        assert connection.answer().status == 100
        connection.send(seven + LIVE)
        if ends:
            connection.end()
        assert [connection.answer().status for _ in range(2)] == [200, 200]


# Clients that have said all that they have to say


@both_ways
def test_a_client_that_ends_its_side_after_its_requests_gets_its_answers(
    start: Start, protocol: type[ServerConnection], seven: bytes
) -> None:
    with start(protocol).open() as connection:
        connection.send(request(seven) + LIVE + request(seven)).end()
        assert [connection.answer().status for _ in range(3)] == [200, 200, 200]
        assert connection.is_closed()


@both_ways
@pytest.mark.parametrize("sent", [10, 60, -10], ids=["request line", "headers", "body"])
def test_a_client_that_ends_its_side_amid_a_request_is_told(
    start: Start, protocol: type[ServerConnection], seven: bytes, sent: int
) -> None:
    server = start(protocol)
    for before in (b"", LIVE):
        with server.open() as connection:
            connection.send(before + request(seven)[:sent]).end()
            if before:
                assert connection.answer().status == 200
            assert_refused(connection.answer(), 400, "client_disconnected")
            assert connection.is_closed()
    server.turn()
    assert (server.catalogue.admission.pending, server.catalogue.admission.pending_bytes) == (0, 0)


def test_an_error_of_a_head_request_has_no_body(start: Start) -> None:
    with start().open() as connection:
        connection.send(b"HEAD /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
        assert connection.answer(has_body=False).status == 400
        assert connection.is_closed()


def test_a_client_that_ends_its_side_and_asks_for_nothing_is_let_go(start: Start) -> None:
    server = start()
    with server.open() as new, server.open() as kept:
        assert new.end().is_closed()
        kept.send(LIVE).answer()
        assert kept.end().is_closed()


# Slow senders


@both_ways
@pytest.mark.parametrize("sent", [10, 60, -10], ids=["request line", "headers", "body"])
def test_a_slow_sender_costs_its_own_connection_only(
    start: Start, protocol: type[ServerConnection], seven: bytes, sent: int
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
def test_a_sender_that_drips_is_slow_too(start: Start, protocol: type[ServerConnection], seven: bytes) -> None:
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
def test_a_timeout_that_is_none_is_400(
    start: Start, protocol: type[ServerConnection], seven: bytes, asked: str
) -> None:
    data = request(seven).replace(b"Host: a", b"Host: a\r\nX-Request-Timeout: %b" % asked.encode("latin-1"))
    answer = start(protocol).ask(data)
    assert answer.status == 400
    assert "X-Request-Timeout" in json.loads(answer.body)["error"]


@both_ways
@pytest.mark.parametrize(("asked", "status"), [("1e-9", 504), ("5", 200), ("inf", 200), ("0.5e1", 200)])
def test_a_client_may_ask_for_less_time(
    start: Start, protocol: type[ServerConnection], seven: bytes, asked: str, status: int
) -> None:
    server = start(protocol)
    assert server.ask(request(seven, f"X-Request-Timeout: {asked}")).status == status
    assert server.catalogue.admission.pending == 0


@both_ways
def test_a_client_may_not_ask_for_more_time(start: Start, protocol: type[ServerConnection], seven: bytes) -> None:
    server = start(protocol, request_timeout_s=1e-9)
    assert server.ask(request(seven, "X-Request-Timeout: 60")).status == 504


# Ids


@both_ways
def test_every_answer_carries_the_id_of_its_request(
    start: Start, protocol: type[ServerConnection], seven: bytes
) -> None:
    server = start(protocol)
    given = request(seven).replace(b"same-for-both", b"my-own")
    assert dict(server.ask(given).headers)["x-request-id"] == "my-own"
    made = {dict(server.ask(data.replace(b"X-Request-ID", b"X-Other")).headers)["x-request-id"] for data in [given] * 5}
    assert len(made) == 5


def test_a_worker_that_stops_says_so_in_every_answer(start: Start, seven: bytes) -> None:
    server = start(max_pending=1000)  # its own
    server.lifecycle.stopping = True
    for data in (request(seven), request(b"junk"), LIVE):
        with server.open() as connection:
            assert ("connection", "close") in connection.send(data).answer().headers
            assert connection.is_closed()
