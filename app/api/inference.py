"""Many pictures of one request, in order, whole or not at all: what every protocol but `/predict` itself delegates to.

It reads bodies within the limits of the settings, and knows no protocol.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.bodies.content_coding import content_encoding, inflater_of
from app.api.bodies.json import parse_json
from app.api.bodies.uploads import read_body
from app.api.gathering import Gathering
from app.errors import ImageclassError, ImageError, InferenceFailed, MalformedRequest, UploadTooLarge
from app.serving.admission import Admission
from app.serving.batcher import Reply
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier

_Answer = TypeVar("_Answer")
OF_ONE_PICTURE = (ImageError, InferenceFailed, UploadTooLarge)
"""What is wrong with one picture of many, and none of the others' fault."""


@dataclass(frozen=True)
class RequestLimits:
    """What the settings allow a request, whatever the model."""

    timeout_s: float
    max_upload_bytes: int
    max_batch_bytes: int
    max_batch_pictures: int
    max_json_values: int


class Inferred(NamedTuple):
    """The probabilities (N, K) of a request's N pictures, in their order, the model that they are of, and the replies,
    which know what each took."""

    model: Classifier
    probabilities: NDArray[np.float32]
    replies: Sequence[Reply]


class Inference:
    """Has pictures classified by the models of a catalogue."""

    def __init__(self, catalogue: Catalogue, limits: RequestLimits) -> None:
        self.catalogue = catalogue
        self.limits = limits

    @property
    def admission(self) -> Admission:
        return self.catalogue.admission

    def deadline(self, asked_s: float | None = None) -> float:
        """Return when an answer must be there, on the event loop's clock, where the client asks for so many seconds."""
        seconds = self.limits.timeout_s if asked_s is None else min(self.limits.timeout_s, asked_s)
        return asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def body(self, receive: Receive, headers: Headers) -> AsyncIterator[bytes]:
        """Read and inflate the whole body of a request with many pictures; count it as held until the block ends.

        Raises UnsupportedMediaType, UploadTooLarge, MalformedRequest, Overloaded or ClientDisconnect.
        """
        inflater = inflater_of(content_encoding(headers))
        length, limit = headers.get("content-length", ""), self.limits.max_batch_bytes
        with self.admission.receive() as received:
            yield await read_body(receive, length, limit, received, inflater)

    def parse_json(self, body: bytes | memoryview) -> Any:
        """Return the JSON of a body, or of its beginning. Raises MalformedRequest or UploadTooLarge."""
        return parse_json(body, max_values=self.limits.max_json_values)

    def check_count(self, pictures: int) -> None:
        """Raise MalformedRequest where a request holds no picture, or too many."""
        if not pictures:
            raise MalformedRequest("The request holds no picture. Send one at least.")
        if pictures > self.limits.max_batch_pictures:
            raise MalformedRequest(
                f"The request holds {pictures} pictures; at most {self.limits.max_batch_pictures} are accepted. "
                "Send them in several requests."
            )

    async def infer(
        self,
        name: str | None,
        pictures: Sequence[bytes] | NDArray[np.uint8],
        *,
        version: str | None = None,
        deadline: float,
        receive: Receive | None = None,
    ) -> Inferred:
        """Return the probabilities of encoded pictures, or of an array (N, H, W, C) in the model's own input shape.

        All of them, or an ImageclassError, which names the index of a picture that is at fault. `deadline` is what
        `deadline` returns. Cancelled, or where `receive` says that the client is gone, what has not begun is not done.
        """
        count = len(pictures)
        self.check_count(count)
        model = self.catalogue.get(name, version)
        if isinstance(pictures, np.ndarray):
            _check_shape(pictures, model)
        with self.admission.admit(count):
            gathering = Gathering(count)
            try:
                for index, (picture, reply) in enumerate(zip(pictures, gathering.replies, strict=True)):
                    try:
                        self.put(model, picture, reply, deadline)
                    except OF_ONE_PICTURE as exc:
                        raise _at(index, exc, count) from exc
                outcomes = await (gathering.outcomes if receive is None else unless_gone(receive, gathering.outcomes))
            finally:
                for reply in gathering.replies:
                    model.withdraw(reply)
        rows = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, OF_ONE_PICTURE):
                raise _at(index, outcome, count) from outcome
            if isinstance(outcome, Exception):
                raise outcome
            rows.append(outcome)
        return Inferred(model, np.stack(rows), gathering.replies)

    def put(self, model: Classifier, picture: bytes | NDArray[np.uint8], reply: Reply, deadline: float) -> None:
        """Have one picture of many classified: `reply` gets its outcome. Raises what `Classifier.put` does, and
        UploadTooLarge."""
        if isinstance(picture, np.ndarray):
            model.put_image(picture, reply, deadline=deadline)
        elif len(picture) > self.limits.max_upload_bytes:
            limit = f"{self.limits.max_upload_bytes:,} bytes"
            raise UploadTooLarge(f"The picture is larger than {limit}. Send a smaller one.")
        else:
            model.put(picture, reply, deadline=deadline)


def asked_seconds(timeout: str) -> float | None:
    """Return the seconds of an X-Request-Timeout header, None where it is empty. Raises MalformedRequest."""
    if not timeout:
        return None
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise MalformedRequest(f"X-Request-Timeout is '{timeout}'; send seconds above 0, such as 0.5.")
    return seconds


async def unless_gone(receive: Receive, answer: asyncio.Future[_Answer]) -> _Answer:
    """Return the answer, or raise ClientDisconnect if the client hangs up before it is there. Then it is cancelled: an
    error that came for it later would be reported as one that nobody looked at."""
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
    """Return the error of one picture as that of the whole request, which names the picture where there are several."""
    return error if count == 1 else type(error)(f"Picture {index}, counted from 0: {error}")
