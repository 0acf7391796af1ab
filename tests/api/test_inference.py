"""Many pictures of one request: in order, all or none, whatever the protocol."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.api.bodies.json import parse_json
from app.api.inference import Answered, Inference, Pictures, Question, Written, unless_gone
from app.api.inference import Message as Asked
from app.contract.preprocessing import preprocess
from app.errors import (
    DeadlineExceeded,
    ImageclassError,
    MalformedRequest,
    ModelNotFound,
    UndecodableImage,
    UnsupportedFormat,
    UploadTooLarge,
)
from app.main import open_catalogue, request_limits
from app.metrics import Metrics
from app.serving.batcher import RowFuture
from app.serving.classifier import Classifier
from app.settings import Settings
from tests.conftest import Load
from tests.holding import busy


@asynccontextmanager
async def inference(load: Load, store: Path, **settings: Any) -> AsyncIterator[Inference]:
    asked = Settings(**{"model_store": store, "engine": "openvino", **settings})
    async with open_catalogue(asked, load(asked), Metrics()) as catalogue:
        yield Inference(catalogue, request_limits(asked))


class Probabilities(Question):
    """Asks for pictures that are at hand, and keeps their probabilities (N, K)."""

    def __init__(self, pictures: Pictures, name: str | None, version: str | None) -> None:
        self.model, self.version = name, version
        self._pictures = pictures
        self.found = np.empty((0, 0), np.float32)

    def read(self, body: bytes, model: Classifier) -> Asked:
        assert body == b"a body"
        return self._pictures, None

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        self.found = np.stack(outcomes)
        return Written(b"")


class AtHand:
    """The Source of a request whose body is at hand."""

    trace = None

    def __init__(self, *, timeout_s: float | None, receive: Receive) -> None:
        self.receive = receive
        self._timeout_s = timeout_s

    def about(self, model: Classifier) -> None: ...

    def check(self) -> float | None:
        return self._timeout_s

    async def read(self, received: Callable[[int], None]) -> bytes:
        received(6)
        return b"a body"


async def stays() -> Message:
    """Receive nothing: the client neither says more nor leaves."""
    nothing: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await nothing


async def infer(
    asked: Inference,
    name: str | None,
    pictures: Pictures,
    *,
    version: str | None = None,
    timeout_s: float | None = None,
    receive: Receive = stays,
) -> tuple[Answered, NDArray[np.float32]]:
    question = Probabilities(pictures, name, version)
    answered = await asked.answer(question, AtHand(timeout_s=timeout_s, receive=receive))
    return answered, question.found


@pytest.fixture
def pictures(mnist_pictures: list[tuple[Path, str]]) -> list[bytes]:
    return [file.read_bytes() for file, _ in mnist_pictures]


async def test_more_pictures_than_a_batch_holds_are_answered_in_order(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    async with inference(load, trained_store, max_batch_size=16, max_batch_pictures=80) as asked:
        model = asked.catalogue.get()
        alone = [await model.classify(picture) for picture in pictures]
        answered, found = await infer(asked, "digits", pictures)
        assert answered.model is model
        assert found.shape == (80, 10)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, alone, atol=1e-5)
        assert len({row.tobytes() for row in found}) > 60  # so a wrong order would show


async def test_a_tensor_gets_what_its_pictures_get(load: Load, trained_store: Path, pictures: list[bytes]) -> None:
    async with inference(load, trained_store) as asked:
        spec = asked.catalogue.get().manifest.preprocessing
        tensor = np.stack([preprocess(picture, spec) for picture in pictures[:5]])
        _, by_tensor = await infer(asked, None, tensor)
        _, by_bytes = await infer(asked, None, pictures[:5])
        np.testing.assert_allclose(by_tensor, by_bytes, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 27, 28, 1), (2, 28, 28, 3), (2,)])
async def test_a_tensor_of_another_shape_is_refused_with_the_models(
    load: Load, trained_store: Path, shape: tuple[int, ...]
) -> None:
    async with inference(load, trained_store) as asked:
        with pytest.raises(MalformedRequest, match=r"takes \[N, 28, 28, 1\]"):
            await infer(asked, None, np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda good: b"no picture", UnsupportedFormat),
        (lambda good: good[:-40], UndecodableImage),
        (lambda good: good + bytes(2000), UploadTooLarge),
    ],
)
async def test_a_bad_picture_refuses_them_all_and_is_named(
    load: Load, trained_store: Path, pictures: list[bytes], bad: Any, error: type[ImageclassError]
) -> None:
    async with inference(load, trained_store, max_upload_bytes=1500) as asked:
        with pytest.raises(error, match=r"^Picture 2, counted from 0: .*\.$"):
            await infer(asked, None, [*pictures[:2], bad(pictures[2]), pictures[3]])
        with pytest.raises(error, match=r"^(?!Picture 0,)"):
            await infer(asked, None, [bad(pictures[2])])
        assert asked.admission.pending == asked.admission.pending_bytes == 0
        await infer(asked, None, pictures[:4])


@pytest.mark.parametrize("count", [0, 5])
async def test_no_picture_and_too_many_are_refused(
    load: Load, trained_store: Path, pictures: list[bytes], count: int
) -> None:
    async with inference(load, trained_store, max_batch_pictures=4) as asked:
        with pytest.raises(MalformedRequest, match="picture"):
            await infer(asked, None, pictures[:count])


async def test_only_the_version_that_is_live_can_be_asked(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    async with inference(load, trained_store) as asked:
        await infer(asked, "digits", pictures[:1], version="1")
        with pytest.raises(ModelNotFound, match=r"Version '2' of 'digits' is not live here; version 1 is\."):
            await infer(asked, "digits", pictures[:1], version="2")


async def test_a_deadline_that_has_passed_is_told(load: Load, trained_store: Path, pictures: list[bytes]) -> None:
    async with inference(load, trained_store) as asked:
        with pytest.raises(DeadlineExceeded):
            await infer(asked, None, pictures[:3], timeout_s=-1)


async def test_a_client_that_hangs_up_leaves_nothing_behind(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async with inference(load, trained_store, workers=64, inline_decode_pixels=0) as asked:
        with busy(asked.catalogue._decode_pool), pytest.raises(ClientDisconnect):
            await infer(asked, None, pictures[:3], receive=receive)
        assert asked.admission.pending == 0


async def test_an_error_for_a_client_that_has_hung_up_is_not_reported_as_lost() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    answer = RowFuture()
    with pytest.raises(ClientDisconnect):
        await unless_gone(receive, answer)
    if not answer.done():  # as whoever answers looks
        answer.set_exception(DeadlineExceeded("too late"))
    del answer
    gc.collect()
    assert reported == []


async def test_a_client_may_ask_for_less_time_than_the_service_allows_but_not_for_more(
    load: Load, trained_store: Path
) -> None:
    async with inference(load, trained_store, request_timeout_s=5) as asked:
        now = asyncio.get_running_loop().time()
        assert asked.deadline(2.0) == pytest.approx(now + 2, abs=0.5)
        assert asked.deadline(20.0) == pytest.approx(now + 5, abs=0.5)
        assert asked.deadline() == pytest.approx(now + 5, abs=0.5)


@given(st.binary() | st.text().map(str.encode))
def test_whatever_is_no_json_is_told(body: bytes) -> None:
    try:
        parse_json(body, max_values=100)
    except (MalformedRequest, UploadTooLarge) as exc:
        assert str(exc).endswith(".")  # noqa: PT017 - most bodies are not JSON


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[" + b"[]," * 1000 + b"1]", b'{"a":' * 100_000])
def test_json_that_would_take_much_memory_is_not_parsed(body: bytes) -> None:
    with pytest.raises((MalformedRequest, UploadTooLarge)):
        parse_json(body, max_values=1000)


def test_json_of_as_many_values_as_are_allowed_is_parsed() -> None:
    assert parse_json(b"[1,2,3]", max_values=3) == [1, 2, 3]
    with pytest.raises(UploadTooLarge, match="more than 2 values"):
        parse_json(b"[1,2,3]", max_values=2)
