"""Refuse requests to classify a picture under overload for as little as can be: what is refused must not cost others.

A plain request that came in one piece is recognised without parsing it, and refused. Any other is parsed up to the end
of its headers, refused, and its body read past. It knows nothing of pictures or models.
"""

import re
from time import perf_counter
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.api.connection import LimitedProtocol
from app.api.errors import error_body
from app.api.keys import RawHeaders
from app.errors import Overloaded
from app.serving.admission import Admission

_PATH = "/predict"
_STATUS = 503
_PLACE = "(the id)"
_BEGINNINGS = (b"POST /predict HTTP/1.1\r\n", b"POST /predict?")
_MOST_HEAD_BYTES = 2048
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})(?=\r\n)")
# What changes how the request is framed or answered is for the parser.
_SPECIAL = re.compile(
    rb"\r\n(?:transfer-encoding|connection:(?! ?keep-alive\r)|expect|upgrade|origin|x-request-id|[ \t])"
)


def is_whole_plain_request(data: bytes) -> bool:
    """Say whether the data are one plain request to /predict, from its first byte to its last."""
    if not data.startswith(_BEGINNINGS):
        return False
    end = data.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
    if end < 0:
        return False
    head = data[: end + 2].lower()
    lengths = _LENGTH.findall(head)
    return len(lengths) == 1 and len(data) == end + 4 + int(lengths[0]) and _SPECIAL.search(head) is None


class SheddingProtocol(LimitedProtocol):
    """It finds the `predictor`, whose admission decides, and `overload_answers` in the state of the lifespan."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cors: bool = self.app_state["cors"]
        self._admission: Admission = self.app_state["predictor"].admission
        self._answers: OverloadAnswers = self.app_state["overload_answers"]

    @property
    def may_answer_now(self) -> bool:
        """Whether the answer to the newest request may be the next one: no other is to be given or read first."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return not self.flow.write_paused and (cycle is None or cycle.response_complete)

    @property
    def is_plain_post(self) -> bool:
        """Whether the request whose head is there is framed as almost all are."""
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.expect_100_continue
        )

    def data_received(self, data: bytes) -> None:
        if (
            self._admission.overloaded
            and self.awaits_request
            and self._nothing_to_check
            and self.may_answer_now
            and is_whole_plain_request(data)
            and self._admission.must_refuse()
        ):
            self._refuse_for_overload(())
            self.stay_open()
        else:
            super().data_received(data)

    def open_cycle(self) -> None:
        if (
            self._admission.overloaded
            and self.url.partition(b"?")[0] == b"/predict"
            and self._nothing_to_check
            and self.is_plain_post
            and self.parser.should_keep_alive()
            and self.may_answer_now
            and self._admission.must_refuse()
        ):
            self._refuse_for_overload(self.headers)
            self.cycle = _Answered()  # type: ignore[assignment]
        else:
            self.open_admitted_cycle()

    def open_admitted_cycle(self) -> None:
        """Begin to answer a request that is not refused here."""
        super().open_cycle()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if type(cast("Any", self.cycle)) is _Answered:
            self.stay_open()

    @property
    def _nothing_to_check(self) -> bool:
        """Whether anyone may ask, so that a refusal tells nobody more than they may know."""
        return not (self.gate.guarded or self.cors)

    def _refuse_for_overload(self, headers: RawHeaders) -> None:
        """Answer 503 to a request with these headers, as the error table does."""
        began = perf_counter()
        seconds = self._admission.refuse()
        request_id = self.gate.request_id(headers)
        self.gate.note(
            request_id=request_id,
            method="POST",
            path=_PATH,
            route=_PATH,
            model="",
            version="",
            status=_STATUS,
            code=Overloaded.code,
            seconds=perf_counter() - began,
        )
        self.transport.write(self._answers.answer(seconds, request_id, self.server_state.default_headers))


class OverloadAnswers:
    """Writes 503 answers, as the error table has them, from what does not change between two."""

    def __init__(self) -> None:
        self._date: list[tuple[bytes, bytes]] | None = None
        self._parts: dict[int, tuple[bytes, bytes, bytes, bytes, int]] = {}  # by the seconds after which to try again

    def answer(self, seconds: int, request_id: str, date: list[tuple[bytes, bytes]]) -> bytes:
        """Return a whole answer; `date` is uvicorn's list of headers for every answer, replaced every second."""
        if date is not self._date:
            self._date = date
            self._parts.clear()
        parts = self._parts.get(seconds)
        if parts is None:
            parts = self._parts[seconds] = _parts_of(seconds, date)
        before_id, after_id, before_body, after_body, size = parts
        identity = request_id.encode("ascii")
        length = b"%d" % (size + len(identity))
        return b"".join((before_id, identity, after_id, length, before_body, identity, after_body))


def _parts_of(seconds: int, date: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes, bytes, int]:
    message = f"The service is asked for more than it can do. Try again in {seconds} s."
    body, _, rest = error_body(message, Overloaded.code, _PLACE).partition(_PLACE.encode())
    head = STATUS_LINE[_STATUS] + b"".join(b"%b: %b\r\n" % header for header in date)
    return (
        head + b"retry-after: %d\r\nx-request-id: " % seconds,
        b"\r\ncontent-length: ",
        b"\r\ncontent-type: application/json\r\n\r\n" + body,
        rest,
        len(body) + len(rest),
    )


class _NobodyWaits:
    """Stands for the event that uvicorn sets for a task that waits for the body."""

    def set(self) -> None: ...


NOBODY_WAITS = _NobodyWaits()


class _Answered:
    """Stands for uvicorn's cycle where the answer was given before the body had arrived."""

    response_started = response_complete = True
    disconnected = more_body = False
    keep_alive = True
    message_event = NOBODY_WAITS
    body = b""
