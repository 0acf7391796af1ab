"""A connection under fuzzing: how its data arrive, what the client does meanwhile, and what must hold of answers."""

import random

from structlog.testing import capture_logs

from tests.api.http1.generated import generators, stream
from tests.api.http1.in_memory import Service, WrittenAnswer, answers_in, echo_of
from tests.api.http1.readings import Reading, read, read_by_h11

_OVERLOADED, _ENDS, _IS_DEAF, _STOPS, _IS_SLOW, _LEAVES = 1, 2, 4, 8, 16, 32
_MAX_HEADER_BYTES = 2048
_MOST_AHEAD = 64 * 1024
_RECEIVE_TIMEOUT_S = 5.0
_LONG_S = 120.0
"""After it, every clock of the connection has run out."""
_MOST_SEGMENTS = 200
_TARGETS = (
    *("/predict", "/echo", "/echo?early", "/echo?later", "/echo?pieces", "/echo?never", "/early", "/slow", "/stream"),
    *("/fails", "/broken"),
)
_FAILING = (b"/fails", b"/broken")


def connection(data: bytes) -> str:
    """Send what comes after three bytes, in the way that these say; return what came of it, in a word.

    The first says who does what, the second how long a segment is (0: all in one), the third at which segment the
    client ends, leaves or begins to read, or the worker stops.
    """
    does, size, moment = (data + bytes(3))[:3]
    sent = data[3:]
    size = max(size or len(sent), len(sent) // _MOST_SEGMENTS + 1)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    turn = round(len(pieces) * moment / 255)
    delivered: list[bytes] = []
    with (
        capture_logs() as logs,
        Service(
            overloaded=bool(does & _OVERLOADED),
            max_header_bytes=_MAX_HEADER_BYTES,
            receive_timeout_s=_RECEIVE_TIMEOUT_S,
        ) as service,
    ):
        service.transport.client_reads = not does & _IS_DEAF
        for number, piece in enumerate([*pieces, b""]):
            if number == turn and _turn(service, does):
                break
            service.loop.wait(1.0 if does & _IS_SLOW else 0.0)
            if service.transport.is_reading_paused:
                service.loop.wait(_RECEIVE_TIMEOUT_S)
            if not piece or not service.send(piece):
                break
            delivered.append(piece)
            assert len(service.connection._ahead) <= _MOST_AHEAD + len(piece), "more waits than may"
        service.loop.wait(_LONG_S)
        service.transport.read_on()
        service.loop.wait(_LONG_S)
    ours = read(delivered, _MAX_HEADER_BYTES)
    theirs = read_by_h11(b"".join(delivered))
    assert ours.messages == theirs.messages[: len(ours.messages)], "h11 reads other requests"
    answers = answers_in(bytes(service.transport.written), ours.methods)
    assert not service.transport.mistakes, service.transport.mistakes
    assert not service.loop.failures, service.loop.failures
    assert not service.leftovers, service.leftovers
    fails = any(path in sent for path in _FAILING)
    assert fails or not logs, logs
    _check(answers, ours, calm=not does & _OVERLOADED, may_be_cut=fails or bool(does & (_LEAVES | _IS_DEAF)))
    lasts = not (fails or does & (_STOPS | _LEAVES | _IS_DEAF | _IS_SLOW) or (does & _ENDS and does & _OVERLOADED))
    # An answer before the body that a client waits to be told to send ends the connection.
    if lasts and not any(message.query == b"never" or message.expects_continue for message in ours.messages):
        assert len(answers) == _expected(ours), "a request has no answer"
    return f"{[answer.outcome for answer in answers][-3:]} {ours.rest}"


def _turn(service: Service, does: int) -> bool:
    """Let happen what happens in the middle; return whether the client sends nothing more."""
    if does & _STOPS:
        service.lifecycle.stopping = True
        with service.loop.running():
            service.connection.shutdown()
    if does & _IS_DEAF:
        service.transport.read_on()
    if does & _LEAVES:
        service.transport.abort()
    if does & _ENDS:
        service.end()
    return bool(does & (_ENDS | _LEAVES))


def _expected(ours: Reading) -> int:
    """Return how many answers there are if all requests are answered, also the one that is broken or does not end."""
    return len(ours.messages) + (ours.rest != "nothing")


def _check(answers: list[WrittenAnswer], ours: Reading, *, calm: bool, may_be_cut: bool) -> None:
    assert len(answers) <= _expected(ours), "there are more answers than requests"
    for number, answer in enumerate(answers):
        is_last = number == len(answers) - 1
        assert answer.is_complete or (is_last and may_be_cut), answer
        assert is_last or not answer.closes, f"something follows {answer}"
        message = ours.messages[number] if number < len(ours.messages) else None
        if b"x-echo" not in answer.headers:
            assert answer.status >= 400, answer
            if answer.status == 503:
                assert not calm, answer
                assert message is None or (message.method, message.path) == (b"POST", b"/predict"), answer
            else:
                assert answer.closes, answer
        elif answer.status == 200 and message is not None and message.method != b"HEAD" and answer.is_complete:
            begin = echo_of(message.method, message.path, message.query, b"")
            assert answer.body.startswith(begin), (answer, message)
            is_early = message.path == b"/early" or message.query == b"early"
            assert is_early or answer.body == begin + message.body, (answer, message)


def generated(rng: random.Random) -> bytes:
    """Return an input that sends generated requests in one of the ways."""
    does = sum(rng.choice((0, 0, 0, bit)) for bit in (_OVERLOADED, _ENDS, _IS_DEAF, _STOPS, _IS_SLOW, _LEAVES))
    return bytes([does, rng.choice((0, 0, 1, 7, 40, 200)), rng.randrange(256)]) + stream(rng, _TARGETS)


def connection_seeds() -> list[bytes]:
    get = b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"
    post = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"
    predict, fast = post % b"/predict", post % b"/echo"
    requests = [
        *(get, predict, fast, predict * 3, fast * 3 + get, get + predict + fast + b"\0", b"\r\n\r\n" + get + b"\r\n"),
        *(
            post % b"/echo?later" + get,
            post % b"/echo?early",
            post % b"/echo?pieces" + get,
            post % b"/echo?never" + get,
        ),
        *(post % b"/slow" + fast, post % b"/stream" + get, post % b"/early" + get, post % b"/fails", post % b"/broken"),
        *(chunked % path + whole + get for path in (b"/predict", b"/echo", b"/early", b"/echo?early")),
        *(
            chunked % path + b"5\r\nhello!"
            for path in (b"/predict", b"/echo", b"/early", b"/echo?early", b"/echo?never")
        ),
        *(get.replace(b"GET", b"HEAD") * 2, get.replace(b"1.1", b"1.0") + get, get.replace(b"/a", b"http://b/a")),
        *(
            get.replace(b"Host", b"Connection: close\r\nHost") + get,
            get.replace(b"Host", b"X: %b\r\nHost" % (b"a" * 3000)),
        ),
        *(fast.replace(b"Host", b"Expect: 100-continue\r\nHost"), predict.replace(b"Host", b"Upgrade: h2c\r\nHost")),
        *(get.replace(b"1.1", b"2.0"), get.replace(b": a", b": a\r\nHost: b"), predict.replace(b"5", b"6"), get[:-2]),
        *(predict[:-1], chunked % b"/echo" + whole[:-2], b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"\0\r\n\r\n", b""),
        post.replace(b"5", b"70000") % b"/echo?later" + bytes(70_000 - 5) + get * 20,
    ]
    ways = [
        bytes([does, size, 128]) for does, size in ((0, 0), (1, 0), (1, 9), (2, 7), (4, 0), (8, 50), (16, 30), (32, 20))
    ]
    return [ways[number % len(ways)] + request for number, request in enumerate(requests)] + [
        *(bytes(3) + request for request in requests),
        *(generated(rng) for rng in generators(500)),
    ]
