"""The one lifecycle of a request to classify pictures, for every protocol.

Its body is read under admission. In one iteration of the event loop the live model is looked up, the message parsed,
and its pictures admitted and handed to the model. The outcomes are awaited unless the client disconnects, and the
answer is written. A protocol supplies a `Question`, which parses the message and writes the answer. `Inference.answer`
is the lifecycle as a coroutine; a connection that answers without one (`app.api.http1.fast_path`) uses its two halves,
`Inference.begin` and `Call`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.bodies.json import parse_json
from app.api.server_timing import of_many, of_one
from app.errors import ImageclassError, ImageError, InferenceFailed, MalformedRequest, UploadTooLarge
from app.serving.admission import Admission, Lease, Owner, this_task
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier, WithOutput
from app.serving.explanation import Explanation, ExplanationOptions
from app.tracing.trace import Trace

_Result = TypeVar("_Result")
_OF_ONE_PICTURE = (ImageError, InferenceFailed, UploadTooLarge)
"""Errors of one picture of many, which do not affect the others."""

Pictures = Sequence[bytes] | NDArray[np.uint8]
"""Encoded pictures, or an array (N, H, W, C) in the model's own input shape."""
Row = NDArray[np.float32] | WithOutput | Explanation
Outcome = Row | Exception
"""The probabilities (K,) of one picture, with any other requested output; or the error."""


@dataclass(frozen=True)
class RequestLimits:
    """The configured limits of a request to any model."""

    timeout_s: float
    max_upload_bytes: int
    max_batch_bytes: int
    max_batch_pictures: int
    max_form_fields: int
    max_json_values: int


Message = tuple[Pictures, float | None]
"""A parsed message: its pictures, and the seconds that it allows for an answer, or None."""


class Written(NamedTuple):
    """An answer in its protocol's form. `failures` are errors of single pictures to be logged for the operator."""

    body: bytes
    media_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    failures: Sequence[InferenceFailed] = ()


class Question(ABC):
    """One request in its protocol's form."""

    fails_as_one = True
    """Whether one failing picture fails the whole request. If so, `write` gets probabilities only."""
    model: str | None = None
    """None means the default model."""
    version: str | None = None
    """None means the live version."""
    explanation: ExplanationOptions | None = None
    """What the requested explanation is to hold; every outcome is then an `Explanation`. None: no explanation."""

    def check_head(self) -> None:  # noqa: B027 - most protocols have nothing to check
        """Raise an ImageclassError if the headers show that the body is unusable."""

    def output_of(self, _: Classifier) -> str | None:
        """Return which other output of the model is read besides the probabilities; outcomes are then `WithOutput`.

        None if the probabilities are enough. Raises an ImageclassError if the model does not have the requested output.
        """
        return None

    @abstractmethod
    def read(self, body: bytes, model: Classifier) -> Message:
        """Parse the message. Raises an ImageclassError."""

    @abstractmethod
    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        """Return the answer: `outcomes` has an `Outcome` for each picture, in the order of the message."""


class Source(Protocol):
    """The transport of a request: its body, and the headers that are common to all protocols."""

    @property
    def trace(self) -> Trace | None:
        """None if the request is not traced."""

    @property
    def receive(self) -> Receive:
        """Receive messages until the client disconnects."""

    def about(self, model: Classifier) -> None:
        """Record the request's model."""

    def check(self) -> float | None:
        """Return the seconds that the client allows for an answer. Raises an ImageclassError for unusable headers."""

    async def read(self, received: Callable[[int], None]) -> bytes:
        """Return the whole body; report the size of each piece to `received`, which may raise Overloaded."""


class Answered(NamedTuple):
    """A written answer, its model, and the value of its Server-Timing header."""

    written: Written
    model: Classifier
    server_timing: bytes


class Call(ABC):
    """One request for classification, until it is answered. It owns the request's resources, and releases them once.

    `Inference.begin` hands its pictures to a model; `end` must follow. A call of one picture is that picture's Reply.
    """

    __slots__ = (
        *("_lease", "has_failures", "is_over", "model", "outcome", "prepared_s", "question", "queued_s", "ran_s"),
        *("read_s", "replies", "trace", "unanswered"),
    )

    def __init__(self, question: Question) -> None:
        self.question = question
        self.model: Classifier | None = None
        """The model that answers, once it is known."""
        self.replies: Sequence[Call | PictureReply] = ()
        self.read_s = 0.0
        """The seconds that the request took to arrive."""
        self.trace: Trace | None = None
        self.is_over = False
        """Whether the call has ended and needs no answer."""
        self.has_failures = False
        """Whether any outcome is an exception."""
        self.outcome: Outcome | None = None
        self.queued_s = self.prepared_s = self.ran_s = 0.0
        self._lease: Lease | None = None
        self.unanswered = 0
        """Of a call of several pictures: how many have no outcome yet. Each picture's reply subtracts one."""

    @abstractmethod
    def finish(self) -> None:
        """Continue: every picture has its outcome now."""

    def arrived(self, read_s: float) -> None:
        """Record that the whole request has arrived, and how long that took."""
        self.read_s = read_s
        if self.trace is not None:
            self.trace.stage("read", read_s)

    def write(self, model: Classifier) -> Written:
        """Return the answer, between `finish` and `end`. Raises the error that fails the whole request."""
        replies = self.replies
        outcomes = [self.outcome] if len(replies) == 1 else [reply.outcome for reply in replies]
        if self.has_failures:
            self._raise_failure(outcomes)
        return self.question.write(model, outcomes)

    def server_timing(self) -> bytes:
        """Return the value of the Server-Timing header, between `finish` and `end`."""
        replies = self.replies
        return of_one(self, self.read_s) if len(replies) == 1 else of_many(replies, self.read_s)

    def hold(self, lease: Lease, count: int) -> None:
        """Take ownership of the lease for `count` pictures, and make a reply for each."""
        self._lease = lease
        self.unanswered = count
        self.replies = (self,) if count == 1 else [PictureReply(self) for _ in range(count)]

    def end(self) -> None:
        self.is_over = True
        lease = self._lease
        if lease is not None and self.model is not None:
            for reply in self.replies:
                if reply.outcome is None:  # a reply with an outcome is not in the model any more
                    self.model.withdraw(reply)
            lease.end()
            self._lease = None
            self.replies = ()  # break the reference cycle, so that all are freed at once

    def _raise_failure(self, outcomes: Sequence[Outcome | None]) -> None:
        """Raise the first outcome that fails the whole request, if any."""
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, _OF_ONE_PICTURE):
                if self.question.fails_as_one:
                    raise _at(index, outcome, len(outcomes)) from outcome
            elif isinstance(outcome, Exception):
                raise outcome

    # Reply, for a call of one picture

    def done(self) -> bool:
        return self.is_over or self.outcome is not None

    def set_result(self, row: Row) -> None:
        self.outcome = row
        if not self.is_over:
            self.finish()

    def set_exception(self, error: Exception) -> None:
        self.outcome = error
        self.has_failures = True
        if not self.is_over:
            self.finish()


class PictureReply:
    """The Reply of one picture of many. The last to have an outcome finishes the call."""

    __slots__ = ("_call", "outcome", "prepared_s", "queued_s", "ran_s", "trace")

    def __init__(self, call: Call) -> None:
        self.queued_s = self.prepared_s = self.ran_s = 0.0
        self.outcome: Outcome | None = None
        self.trace = call.trace
        self._call = call

    def done(self) -> bool:
        return self.outcome is not None or self._call.is_over

    def set_result(self, row: Row) -> None:
        self._settle(row)

    def set_exception(self, error: Exception) -> None:
        self._call.has_failures = True
        self._settle(error)

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        call = self._call
        call.unanswered -= 1
        if not call.unanswered and not call.is_over:
            call.finish()


class _AwaitedCall(Call):
    """A call that a coroutine awaits."""

    __slots__ = ("finished",)

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


class Inference:
    """Answers questions by the models of a catalogue, within the configured limits."""

    def __init__(self, catalogue: Catalogue, limits: RequestLimits) -> None:
        self.catalogue = catalogue
        self.limits = limits

    @property
    def admission(self) -> Admission:
        return self.catalogue.admission

    async def answer(self, question: Question, source: Source) -> Answered:
        """Answer one request. Raises an ImageclassError, or ClientDisconnect.

        If its task is cancelled or the client disconnects, work that has not begun is dropped.
        """
        source.about(self.catalogue.get(question.model, question.version))
        timeout_s = source.check()
        began = perf_counter()
        call = _AwaitedCall(question)
        call.trace = source.trace
        with self.admission.receive() as received:
            question.check_head()
            body = await source.read(received)
            call.arrived(perf_counter() - began)
            try:
                model = self.begin(call, body, this_task(), timeout_s)
                source.about(model)
                await unless_gone(source.receive, call.finished)
                return Answered(call.write(model), model, call.server_timing())
            finally:
                call.end()

    async def answer_arrived(
        self, question: Question, *, size: int, timeout_s: float | None, trace: Trace | None
    ) -> Written:
        """Answer a request whose message of `size` bytes has arrived, and whose question needs no body.

        Raises an ImageclassError. If its task is cancelled, work that has not begun is dropped.
        """
        call = _AwaitedCall(question)
        call.trace = trace
        call.arrived(0.0)
        try:
            model = self.begin(call, b"", this_task(), timeout_s, size=size)
            await call.finished
            return call.write(model)
        finally:
            call.end()

    def begin(self, call: Call, body: bytes, owner: Owner, timeout_s: float | None, *, size: int = 0) -> Classifier:
        """Parse a whole body and hand its pictures to the model. `Call.end` must follow, even if this raises.

        Returns the model that answers. All of it happens in one iteration of the event loop, during which that model
        stays live. `timeout_s` is the client's limit. `size` is the bytes that the call holds from now on, besides a
        place for each picture. Raises an ImageclassError.
        """
        question = call.question
        model = call.model = self.catalogue.get(question.model, question.version)
        pictures, own_timeout_s = question.read(body, model)
        output = question.output_of(model)
        count = len(pictures)
        if count != 1:
            self.check_count(count)
        options = question.explanation
        put: Callable[..., None] = model.put if options is None else partial(model.explain, options=options)
        most_bytes: float = self.limits.max_upload_bytes
        if isinstance(pictures, np.ndarray):
            _check_shape(pictures, model)
            put, most_bytes = model.put_image, inf
        if timeout_s is None or (own_timeout_s is not None and own_timeout_s < timeout_s):
            timeout_s = own_timeout_s
        deadline = self.deadline(timeout_s)
        call.hold(self.admission.enter(owner, count, size=size, explains=options is not None), count)
        for picture, reply in zip(pictures, call.replies, strict=True):
            try:
                if len(picture) > most_bytes:
                    raise UploadTooLarge(f"The picture is larger than {most_bytes:,} bytes. Send a smaller one.")
                put(picture, reply, deadline=deadline, output=output)
            except ImageclassError as exc:
                if question.fails_as_one:
                    raise _at(call.replies.index(reply), exc, count) from exc
                reply.set_exception(exc)
        model.observe_read(call.read_s)
        return model

    def deadline(self, asked_s: float | None = None) -> float:
        """Return the deadline on the event loop's clock. A request may ask for less time than the setting, not more."""
        most_s = self.limits.timeout_s
        return asyncio.get_running_loop().time() + (most_s if asked_s is None or asked_s > most_s else asked_s)

    def parse_json(self, body: bytes | memoryview) -> Any:
        """Return the JSON of a body, or of its beginning. Raises MalformedRequest or UploadTooLarge."""
        return parse_json(body, max_values=self.limits.max_json_values)

    def check_count(self, pictures: int) -> None:
        """Raise MalformedRequest if a request holds no picture, or too many."""
        if not pictures:
            raise MalformedRequest("The request holds no picture. Send at least one.")
        if pictures > self.limits.max_batch_pictures:
            raise MalformedRequest(
                f"The request holds {pictures} pictures; send at most {self.limits.max_batch_pictures} "
                "in each of several requests."
            )


def asked_seconds(timeout: str) -> float | None:
    """Return the seconds of an X-Request-Timeout header, None if it is empty. Raises MalformedRequest."""
    if not timeout:
        return None
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise MalformedRequest(f"X-Request-Timeout is '{timeout}'; send seconds above 0, such as 0.5.")
    return seconds


async def unless_gone(receive: Receive, answer: asyncio.Future[_Result]) -> _Result:
    """Return the awaited answer, or raise ClientDisconnect if the client disconnects first.

    In that case the answer is cancelled. Otherwise asyncio could log later that its exception was never retrieved.
    """
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)  # noqa: TID251 - there are two
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_shape(pictures: NDArray[np.uint8], model: Classifier) -> None:
    expected = model.manifest.preprocessing.shape
    if pictures.shape[1:] != expected:
        wanted = ", ".join(str(size) for size in expected)
        raise MalformedRequest(
            f"The pictures' shape is {list(pictures.shape)}; the model '{model.name}' takes [N, {wanted}]. "
            "Bring them into that shape, or send encoded pictures."
        )


def _at(index: int, error: ImageclassError, count: int) -> ImageclassError:
    """Return one picture's error as the request's error, with the picture's index if there are several."""
    if count == 1 or not isinstance(error, _OF_ONE_PICTURE):
        return error
    return type(error)(f"Picture {index}, counted from 0: {error}")
