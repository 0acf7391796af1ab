"""One answer for each request, in order, whatever a client sends beside it. Over connections in memory."""

import pytest

from tests.api.http1.in_memory import Service, answered, answers_in

CHUNKED = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("path", [b"/early", b"/echo?early"])
def test_a_request_that_is_answered_before_its_body_breaks_gets_no_second_answer(path: bytes) -> None:
    assert [answer.status for answer in answered([CHUNKED % path, b"1\r\na\r\n", b"5 \r\n"])] == [200]


def test_a_broken_request_behind_an_answer_in_pieces_is_told() -> None:
    for path in (b"/stream", b"/echo?pieces"):
        data = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n\0" % path
        assert [answer.status for answer in answered([data])] == [200, 400]


def test_an_answer_to_head_has_no_body_though_it_is_an_error() -> None:
    head = (CHUNKED % b"/predict").replace(b"POST", b"HEAD")
    for data, status in ((head, 408), (head + b"5 \r\n", 400), (head[:-2] + b"broken\r\n", 400), (head[:20], 408)):
        (answer,) = answered([data])
        assert (answer.outcome, answer.body) == ((status, True), b"")


def test_a_client_that_ended_its_side_gets_all_answers_also_after_an_immediate_one() -> None:
    slow, quick = (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in (b"slow", b"echo"))
    with Service() as service:
        service.send(slow)
        service.send(quick + quick + b"\0")
        service.end()
        service.loop.wait(60)
        answers = answers_in(bytes(service.transport.written), [])
    assert [answer.outcome for answer in answers] == [(200, False)] * 3 + [(400, True)]


def test_a_connection_that_is_lost_holds_nothing() -> None:
    for path in (b"/echo?never", b"/echo", b"/predict", b"/stream"):
        with Service() as service:
            service.send(CHUNKED % path + b"5\r\nhello\r\n" + b"0\r\n\r\n" * path.endswith(b"never"))
            assert service.leftovers
            service.transport.abort()
            service.loop.settle()
            assert not service.leftovers


def test_what_a_client_sends_ahead_is_bounded_and_read_later() -> None:
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    sent = 0
    with Service() as service:
        service.send(get.replace(b"/", b"/slow", 1))
        while service.send(get * 100):
            sent += 100
            assert sent * len(get) < 128 * 1024
        service.loop.wait(1)
        while service.transport.is_reading_paused:
            service.loop.wait(0)
        answers = answers_in(bytes(service.transport.written), [])
    assert [answer.outcome for answer in answers] == [(200, False)] * (sent + 1)


@pytest.mark.parametrize("path", [b"/slow", b"/echo?later"])
def test_what_a_client_sends_ahead_stays_bounded_while_its_requests_are_answered(path: bytes) -> None:
    get = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path
    block = get * 2000
    sent = 0
    with Service() as service:
        for _ in range(20):
            while service.send(block):
                sent += len(block)
            service.loop.wait(1)
    assert sent <= 2 * len(block)


@pytest.mark.parametrize("overloaded", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        *(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /echo?later HTTP/1.1\r\nHost: a\r\n\r\n"),
        *(b"GET /ec", CHUNKED % b"/early" + b"5\r\n", CHUNKED % b"/broken" + b"0\r\n\r\n"),
    ],
    ids=["slow", "later", "half a head", "half a body", "broken off"],
)
def test_a_client_that_has_ended_and_does_not_read_is_let_go(data: bytes, *, overloaded: bool) -> None:
    with Service(overloaded=overloaded) as service:
        service.transport.client_reads = False  # little enough that nobody is told to write no more
        service.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        service.send(data)
        service.loop.settle()
        service.end()
        service.loop.wait(30)
        assert service.transport.is_lost
        assert not service.leftovers


@pytest.mark.parametrize("path", [b"/slow", b"/early", b"/echo", b"/echo?early"])
@pytest.mark.parametrize("ends", [False, True])
def test_a_body_in_many_small_chunks_is_whole_and_lets_others_have_their_turn(path: bytes, *, ends: bool) -> None:
    next_one = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
    data = CHUNKED % path + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n" + next_one
    with Service() as service:
        service.send(data)
        assert not service.transport.written
        if ends:
            service.end()
        service.loop.wait(2)
        answers = answers_in(bytes(service.transport.written), [])
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body.endswith(b"x" * (1 if path.endswith(b"early") else 20_000)) or path == b"/early"
