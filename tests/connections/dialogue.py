"""What a client has sent on one connection and what it was answered, held against each other. No input or output.

h11 is the oracle on both sides: it parses the answers, and it says what the requests are in bytes that were spoiled.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import h11

from tests.connections.asked import Asked

_MADE_ID = re.compile(r"[0-9a-f]{16}-[0-9a-f]+")
_REJECTIONS = frozenset({400, 408, 413, 431, 501, 505})
"""Statuses of answers that end a connection because no request can be read from it any more."""
_HEAD = b"HEAD "
_QUESTIONS = {method: h11.Request(method=method, target="/", headers=[("Host", "a")]) for method in ("GET", "HEAD")}


class Violation(AssertionError):
    """The service did what it must not do."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    identity: str
    closes: bool
    body: bytes


@dataclass(slots=True)
class _Request:
    asked: Asked
    start: int
    """In the bytes of the connection."""
    end: int
    began_at: float = 0.0
    completed_at: float = 0.0
    was_continued: bool = False


class Dialogue:
    """One connection of a client that reads its answers at once, unless it says that it is deaf.

    `receive_timeout_s`, `keep_alive_s` and `request_timeout_s` are those of the service. Half of them is what excuses
    the service for ending a connection, or for an answer 504: the client's clock and the service's differ.
    `overloaded_until` says when the service may have been overloaded last: then it answers nobody who has ended the
    sending side.
    """

    def __init__(
        self,
        *,
        receive_timeout_s: float,
        keep_alive_s: float,
        request_timeout_s: float,
        overloaded_until: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slow_s = receive_timeout_s / 2
        self._idle_s = keep_alive_s / 2
        self._too_long_s = request_timeout_s / 2
        self._overloaded_until = overloaded_until
        self._now = now
        self._requests: list[_Request] = []  # valid ones
        self._size = 0  # bytes of them
        self._sent = 0
        self._wild: bytearray | None = None  # sent since the first that was spoiled
        self._wild_at = 0.0
        self._parser = h11.Connection(h11.CLIENT)
        self._body: list[bytes] = []
        self._response: h11.Response | None = None
        self._wild_answers = bytearray()
        self.closes = False
        """Whether an answer said that the connection ends."""
        self._ended_at: float | None = None  # the client's side
        self._deaf_since: float | None = None
        self.transcript = bytearray()
        """All that was received."""
        self.answers: list[Answer] = []
        self.is_over = False
        self.opened_at = now()

    # What the client does

    def ask(self, asked: Asked) -> None:
        """The bytes of a request are to be sent next."""
        if self._wild is not None:
            return
        self._requests.append(_Request(asked, self._size, self._size + len(asked.data)))
        self._size += len(asked.data)

    def sent(self, data: bytes) -> None:
        """Some of the bytes of the requests have left, or others if `spoils` was called before."""
        if self._wild is not None:
            self._wild += data
            return
        before, self._sent = self._sent, self._sent + len(data)
        now = self._now()
        for request in reversed(self._requests):
            if request.end <= before:
                break
            if before <= request.start < self._sent:
                request.began_at = now
            if before < request.end <= self._sent:
                request.completed_at = now

    def spoils(self) -> None:
        """From here on anything may be sent."""
        if self._wild is None:
            assert self._sent == self._size, "only whole requests come before"
            self._wild, self._wild_at = bytearray(), self._now()
            self._set_wild_apart()

    def half_closes(self) -> None:
        self._ended_at = self._now()

    def is_deaf(self) -> None:
        """The client reads nothing for a while, or slowly."""
        self._deaf_since = self._now()

    @property
    def requests_sent(self) -> int:
        """How many valid requests have been sent to their end."""
        return sum(each.end <= self._sent for each in self._requests)

    @property
    def is_spoiled(self) -> bool:
        return self._wild is not None

    @property
    def is_answered(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.is_over or self.closes or len(self.answers) >= len(self._requests)

    @property
    def was_continued(self) -> bool:
        """Whether the client may send the body of its last request."""
        return self.is_answered or self._requests[-1].was_continued

    # What the service does

    def receives(self, data: bytes) -> None:
        self.transcript += data
        if self._wild is not None and len(self.answers) == len(self._requests):
            self._wild_answers += data
            return
        self._parser.receive_data(data)
        try:
            self._read_answers()
        except h11.RemoteProtocolError as exc:
            raise self.violation(f"what it sent is no answer: {exc}") from exc

    def ends(self, *, reset: bool) -> None:
        """The service has ended the connection."""
        self.is_over = True
        if self._wild is not None and len(self.answers) == len(self._requests):
            self._check_wild()
            return
        if self.closes:
            return
        if (self._response is not None or self._parser.trailing_data[0]) and not self._is_excused():
            raise self.violation("it ended the connection amid an answer")
        unanswered = self._requests[len(self.answers) :]
        begun = [each for each in unanswered if each.start + _empty_lines(each.asked.data) < self._sent]
        if begun and not self._is_excused():
            raise self.violation(f"it did not answer {begun[0].asked.identity}")
        if reset and not self._is_excused():
            raise self.violation("it reset the connection")

    def _is_excused(self) -> bool:
        if self._ended_at is not None and self._overloaded_until() >= self._ended_at:
            return True
        if self._deaf_since is not None and self._now() - self._deaf_since > self._slow_s:
            return True
        since = self.opened_at
        for request in self._requests:
            if self._is_slow(request) or (request.began_at or self._now()) - since > self._idle_s:
                return True
            since = request.completed_at
        if self._wild is None:
            return False
        return self._wild_at - since > self._idle_s or self._now() - self._wild_at > self._slow_s

    def _is_slow(self, request: _Request) -> bool:
        return bool(request.began_at) and (request.completed_at or self._now()) - request.began_at > self._slow_s

    # Answers to valid requests

    def _read_answers(self) -> None:
        parser = self._parser
        while True:
            if parser.our_state is h11.IDLE and parser.trailing_data[0]:
                if self.closes:
                    raise self.violation("it went on after its last answer")
                if len(self.answers) == len(self._requests):
                    raise self.violation("it answered what nobody asked")
                request = self._requests[len(self.answers)]
                # The service takes it for a HEAD as soon as it begins so, and its error has no body then.
                known_from = request.start + _empty_lines(request.asked.data) + len(_HEAD)
                _ask(parser, is_head=request.asked.is_head and self._sent >= known_from)
            event = parser.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.InformationalResponse):
                self._continue(event)
            elif isinstance(event, h11.Response):
                self._response, self._body = event, []
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and self._response is not None:
                response, self._response = self._response, None
                self._take(answer_of(response, b"".join(self._body)))
                if parser.their_state is h11.DONE:
                    parser.start_next_cycle()
                if self._set_wild_apart():
                    return

    def _set_wild_apart(self) -> bool:
        """Keep what follows the answers to valid requests for the end, when it is known what was sent."""
        if self._wild is None or len(self.answers) < len(self._requests):
            return False
        self._wild_answers += self._parser.trailing_data[0]
        self._parser = h11.Connection(h11.CLIENT)
        return True

    def _continue(self, event: h11.InformationalResponse) -> None:
        request = self._requests[len(self.answers)]
        if event.status_code != 100 or not request.asked.expects_continue or request.was_continued:
            raise self.violation(f"it sent {event.status_code}, which nobody expects")
        if self._sent < request.start + request.asked.head_size:
            raise self.violation("it sent 100 before it had the headers")
        request.was_continued = True

    def _take(self, answer: Answer) -> None:
        request = self._requests[len(self.answers)]
        asked = request.asked
        self.answers.append(answer)
        self.closes = answer.closes
        if self.is_answered:
            self._deaf_since = None
        if answer.closes and self._is_told(request, answer):
            return
        if self._sent < request.start + asked.head_size:
            raise self.violation(f"it answered {asked.identity} before it had the headers")
        if asked.identity is None:
            if _MADE_ID.fullmatch(answer.identity) is None:
                raise self.violation("it did not make an id")
        elif answer.identity != asked.identity:
            raise self.violation(f"it answered {answer.identity} where {asked.identity} was next")
        is_late = answer.status == 504 and self._now() - request.began_at > self._too_long_s
        if answer.status not in asked.statuses and not is_late:
            raise self.violation(f"it answered {asked.identity} by {answer.status}, not {sorted(asked.statuses)}")
        if asked.is_head and answer.body:
            raise self.violation(f"it sent a body for {asked.identity}, which is a HEAD")
        if answer.status == 200 and not asked.is_head and not answer.body.startswith(asked.begins):
            raise self.violation(f"it answered {asked.identity} by {answer.body[:60]!r}, not {asked.begins!r}")
        if asked.closes is not None and self._ended_at is None and answer.closes != asked.closes:
            raise self.violation(f"after {asked.identity} it {'closes' if answer.closes else 'goes on'}")

    def _is_told(self, request: _Request, answer: Answer) -> bool:
        """Whether the answer is about the rest of a request that does not come, or came late."""
        if answer.status == 400 and self._ended_at is not None:
            return request.start < self._sent < request.end
        return answer.status == 408 and self._is_slow(request)

    # What follows the first spoiled request

    def _check_wild(self) -> None:
        read = read_requests(bytes(self._wild or b""))
        are_head = [*(each.is_head for each in read.requests), read.begins_as_head]
        answers, rest = read_answers(bytes(self._wild_answers), are_head)
        if rest and not self._is_excused():
            raise self.violation(f"what it sent is no answer: {rest[:200]!r}")
        for index, answer in enumerate(answers):
            is_last = index == len(answers) - 1
            if answer.closes and not is_last:
                raise self.violation("it went on after its last answer")
            if answer.closes and answer.status in _REJECTIONS:
                continue  # it may be stricter than h11
            if index >= len(read.requests):
                raise self.violation(f"it answered what nobody asked: {answer}")
            expected = read.requests[index].identity
            if expected is not None and answer.identity != expected:
                raise self.violation(f"it answered {answer.identity} where {expected} was next")
        if len(answers) > len(read.requests) + read.has_begun_another:
            raise self.violation("it answered more often than it was asked")
        self.answers += answers
        complete = sum(each.is_complete for each in read.requests)
        closes = bool(answers) and answers[-1].closes
        if not closes and not self.closes and len(answers) < complete and not self._is_excused():
            raise self.violation(f"it answered {len(answers)} of {complete} after the first that was spoiled")
        is_told = closes or self.closes or len(answers) > len(read.requests) or _breaks_after_its_answer(read, answers)
        if read.is_invalid and not is_told and not self._is_excused():
            raise self.violation("it did not say what is wrong with what it got")

    def violation(self, what: str) -> Violation:
        """Return an error that says what was sent and answered last."""
        known = len(self.answers)
        recent = [
            f"{each.asked.data[: each.asked.head_size]!r} + {each.asked.data[each.asked.head_size :][:40]!r}… "
            f"{min(self._sent, each.end) - each.start:,} of {len(each.asked.data):,} bytes"
            for each in self._requests[max(0, known - 3) : known + 3]
        ]
        lines = [
            f"{what}; {known} answers, {len(self._requests)} valid requests",
            f"open for {self._now() - self.opened_at:.1f} s",
            f"the client {'goes on' if self._ended_at is None else 'ended'}",
            *recent,
            f"spoiled: {bytes(self._wild[:3000])!r}" if self._wild else "",
            f"received last: {bytes(self.transcript[-600:])!r}",
        ]
        return Violation("\n  ".join(lines))


def answer_of(response: h11.Response, body: bytes) -> Answer:
    headers: dict[bytes, bytes] = {}
    for name, value in response.headers:
        if name in headers:
            raise h11.RemoteProtocolError(f"two headers {name!r}")
        headers[name] = value
    identity = headers.get(b"x-request-id", b"").decode("ascii")
    if not identity or b"date" not in headers:
        raise h11.RemoteProtocolError(f"the headers are {headers}")
    return Answer(response.status_code, identity, headers.get(b"connection") == b"close", body)


def _ask(parser: h11.Connection, *, is_head: bool) -> None:
    parser.send(_QUESTIONS["HEAD" if is_head else "GET"])
    parser.send(h11.EndOfMessage())


def _empty_lines(data: bytes) -> int:
    return len(data) - len(data.lstrip(b"\r\n"))


# h11 reads what was sent


@dataclass(frozen=True, slots=True)
class ReadRequest:
    identity: str | None
    is_head: bool
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Read:
    """The requests that bytes hold; the last may be incomplete, or invalid in its body."""

    requests: list[ReadRequest]
    has_begun_another: bool = False
    """Whether bytes follow that are not, or not yet, the headers of a request; half a line break is such a byte."""
    begins_as_head: bool = False
    """Whether these bytes begin as a HEAD does."""
    is_invalid: bool = False
    """Whether the last bytes are no HTTP."""


def _breaks_after_its_answer(read: Read, answers: Sequence[Answer]) -> bool:
    """Whether the last request had its answer when its body turned out to be invalid."""
    return bool(read.requests) and not read.requests[-1].is_complete and len(answers) == len(read.requests)


def read_requests(data: bytes) -> Read:
    found: list[ReadRequest] = []
    while True:
        empty = data[: _empty_lines(data)]  # h11 takes none; RFC 9112 would have a server ignore them
        data = data[len(empty) :]
        if not data:
            return Read(found, has_begun_another=bool(empty.replace(b"\r\n", b"")))
        begins_as_head = data.startswith(_HEAD)
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(data)
        request: h11.Request | None = None
        try:
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    request = event
                elif event is h11.NEED_DATA:
                    if request is not None:
                        found.append(_read_request(request, is_complete=False))
                    return Read(found, request is None, begins_as_head)
        except h11.RemoteProtocolError:
            if request is not None:
                found.append(_read_request(request, is_complete=False))
            return Read(found, request is None, begins_as_head, is_invalid=True)
        assert request is not None
        found.append(_read_request(request, is_complete=True))
        data = parser.trailing_data[0]


def _read_request(request: h11.Request, *, is_complete: bool) -> ReadRequest:
    given = dict(reversed(request.headers)).get(b"x-request-id", b"").decode("latin-1")
    identity = given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else None
    return ReadRequest(identity, request.method == b"HEAD", is_complete)


def read_answers(data: bytes, are_head: Sequence[bool]) -> tuple[list[Answer], bytes]:
    """Return the answers, and what follows them that is none."""
    answers: list[Answer] = []
    while data:
        parser = h11.Connection(h11.CLIENT)
        _ask(parser, is_head=len(answers) < len(are_head) and are_head[len(answers)])
        parser.receive_data(data)
        response, body = None, []
        try:
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return answers, data
                if isinstance(event, h11.Response):
                    response = event
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
            if response is None:
                return answers, data
            answers.append(answer_of(response, b"".join(body)))
        except h11.RemoteProtocolError:
            return answers, data
        data = parser.trailing_data[0]
    return answers, b""
