"""From bytes to a classification: where a picture is decoded, and what becomes of one that nobody waits for."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.bundle import FEATURES, Bundle, open_bundle
from app.contract.header import IMAGE_FORMATS
from app.contract.preprocessing import Image, preprocess
from app.engines.loading import LoadedModel, load_model
from app.engines.proof import Proof
from app.engines.registry import EngineName
from app.errors import EngineUnavailable, ImageTooLarge, ShuttingDown, UndecodableImage, UnsupportedFormat
from app.metrics import Metrics
from app.serving import classifier
from app.serving.admission import Admission
from app.serving.batcher import row_for
from app.serving.classifier import Classifier, Limits, WithOutput
from app.serving.tuning import Tuning
from tests.holding import busy


class Uniform:
    """An engine that finds every label as probable as the others."""

    name: EngineName = "openvino"

    def predict(self, batch: Image) -> NDArray[np.float32]:
        return np.full((len(batch), 10), 0.1, np.float32)

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        pass


class Decoding:
    """Stands for `preprocess`: remembers the threads that it ran in."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def __call__(self, *given: Any, **more: Any) -> Image:
        self.threads.append(threading.current_thread().name)
        return preprocess(*given, **more)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    decoding = Decoding()
    monkeypatch.setattr(classifier, "preprocess", decoding)
    return decoding


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        yield pool


@pytest.fixture
def gate(pool: ThreadPoolExecutor) -> Iterator[threading.Event]:
    """What keeps the one thread of the pool busy until it is set."""
    with busy(pool) as gate:
        yield gate


@pytest.fixture(scope="module")
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def classifier_of(
    bundle: Bundle,
    pool: ThreadPoolExecutor,
    *,
    inline_decode_pixels: int,
    max_pixels: int = 28 * 28,
    admission: Admission | None = None,
    metrics: Metrics | None = None,
    loaded: LoadedModel | None = None,
) -> Classifier:
    return Classifier(
        loaded or LoadedModel(bundle, Uniform(), "as a test", Proof(16, 0.0)),
        Tuning({1: 0.001}, on_event_loop=True, inline_decode_pixels=inline_decode_pixels),
        decode_pool=pool,
        limits=Limits(
            max_pixels=max_pixels, max_pending=10, accepted_formats=frozenset(IMAGE_FORMATS), inference_timeout_s=10.0
        ),
        admission=admission or Admission(max_pictures=10, max_bytes=1 << 20, burst_s=5.0, metrics=Metrics()),
        metrics=metrics or Metrics(),
        give_up=lambda: None,
    )


@pytest.mark.parametrize(("pixels", "thread"), [(28 * 28, "MainThread"), (28 * 28 - 1, "decode_0")])
async def test_what_is_quick_to_decode_needs_no_thread(
    bundle: Bundle, pool: ThreadPoolExecutor, decoding: Decoding, seven: bytes, pixels: int, thread: str
) -> None:
    model = classifier_of(bundle, pool, inline_decode_pixels=pixels)
    probabilities = await model.classify(seven)
    assert model.manifest.labels == bundle.manifest.labels
    assert probabilities.shape == (10,)
    assert decoding.threads == [thread]


@pytest.mark.parametrize(("bundle_of", "progressive", "held"), [
    ("model_store/mnist/1", 0, 3_000_000),
    ("tests/data/bundles/clothes/1", 0, 3_000_000 // 64),
    ("tests/data/bundles/clothes/1", 1, 3_000_000),
])  # fmt: skip
async def test_a_picture_decoded_at_a_reduced_scale_takes_less_of_the_byte_limit(
    repository: Path, pool: ThreadPoolExecutor, gate: threading.Event, bundle_of: str, progressive: int, held: int
) -> None:
    picture = np.full((1000, 1000, 3), 90, np.uint8)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    admission = Admission(max_pictures=10, max_bytes=1 << 30, burst_s=5.0, metrics=Metrics())
    model = classifier_of(
        open_bundle(repository / bundle_of), pool, inline_decode_pixels=0, max_pixels=1_000_000, admission=admission
    )
    task = asyncio.create_task(model.classify(data))
    await asyncio.sleep(0)
    assert admission.pending_bytes == held
    gate.set()
    await task


@pytest.mark.parametrize("pixels", [0, 28 * 28])
async def test_a_bad_picture_is_the_callers_own_error(
    bundle: Bundle, pool: ThreadPoolExecutor, seven: bytes, pixels: int
) -> None:
    model = classifier_of(bundle, pool, inline_decode_pixels=pixels)
    with pytest.raises(UnsupportedFormat):
        await model.classify(b"junk")
    with pytest.raises(UndecodableImage):
        await model.classify(seven[:60])
    large = seven.replace((28).to_bytes(4) * 2, (28).to_bytes(4) + (29).to_bytes(4), 1)
    with pytest.raises(ImageTooLarge, match="28x29 pixels"):
        await model.classify(large)


async def test_a_picture_whose_caller_is_gone_is_not_decoded_when_its_turn_comes(
    bundle: Bundle, pool: ThreadPoolExecutor, decoding: Decoding, gate: threading.Event, seven: bytes
) -> None:
    model = classifier_of(bundle, pool, inline_decode_pixels=0)
    callers = [asyncio.create_task(model.classify(seven)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    callers[1].cancel()
    await asyncio.gather(callers[1], return_exceptions=True)
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(callers[0], callers[2])
    pool.shutdown()
    assert len(decoding.threads) == 2


async def test_closing_answers_callers_whose_pictures_wait_to_be_decoded(
    bundle: Bundle, pool: ThreadPoolExecutor, gate: threading.Event, seven: bytes
) -> None:
    model = classifier_of(bundle, pool, inline_decode_pixels=0)
    callers = [asyncio.create_task(model.classify(seven)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await model.aclose(grace_s=0)
    pool.shutdown(wait=False, cancel_futures=True)  # as the catalogue does
    gate.set()
    done, _ = await asyncio.wait(callers, timeout=5)
    assert len(done) == 3
    assert all(isinstance(caller.exception(), ShuttingDown) for caller in callers)


@pytest.mark.parametrize("pixels", [0, 28 * 28])
async def test_another_output_is_read_with_the_probabilities(
    bundle: Bundle, pool: ThreadPoolExecutor, pixels: int
) -> None:
    model = classifier_of(bundle, pool, inline_decode_pixels=pixels, max_pixels=1 << 20, loaded=load_model(bundle.path))
    assert not model.is_ready_for(FEATURES)
    await asyncio.gather(model.make_ready_for(FEATURES), model.make_ready_for(FEATURES))

    def put(index: int) -> "asyncio.Future[WithOutput]":
        data = bundle.golden.encoded[index]
        row = row_for(lambda reply: model.put(data, reply, output=FEATURES), model.withdraw)
        return asyncio.ensure_future(row)

    rows = await asyncio.gather(*map(put, range(3)))
    for index, row in enumerate(rows):
        np.testing.assert_allclose(row.probabilities, bundle.golden.probabilities[index], atol=1e-4)
        np.testing.assert_allclose(row.output, bundle.golden.other_outputs[FEATURES][index], rtol=1e-3, atol=1e-3)
    await model.aclose()
    with pytest.raises(ShuttingDown):
        await put(0)


async def test_an_engine_without_other_outputs_is_found_before_a_picture_is_read(
    bundle: Bundle, pool: ThreadPoolExecutor
) -> None:
    model = classifier_of(bundle, pool, inline_decode_pixels=0)
    with pytest.raises(EngineUnavailable, match="returns only probabilities"):
        await model.make_ready_for(FEATURES)
    await model.aclose()
