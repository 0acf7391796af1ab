"""The golden check finds every way in which an installation could differ from training."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.bundle import GOLDEN_EXPECTED, Bundle, expected_npz, open_bundle
from app.contract.preprocessing import Image
from app.engines.loading import load_model
from app.engines.proof import check_batch_size, check_preprocessing, check_probabilities, proven_outputs
from app.engines.registry import ENGINES, EngineName
from app.errors import EngineUnavailable, SelfCheckFailed

Sign = Callable[[Path], None]


class Answering:
    """An engine that knows beforehand what it answers, row by row."""

    name: EngineName = "openvino"

    def __init__(self, answer: NDArray[np.float32]) -> None:
        self.answer = answer
        self.sizes: list[int] = []

    def predict(self, batch: Image) -> NDArray[np.float32]:
        return self.answer[self.next_rows(batch)]

    def next_rows(self, batch: Image) -> slice:
        self.sizes.append(len(batch))
        return slice(sum(self.sizes) - len(batch), sum(self.sizes))

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def path(copy_of_store: Path) -> Path:
    return copy_of_store / "digits" / "1"


@pytest.fixture(scope="module")
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


def png(picture: Image) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def rewrite_expected(path: Path, change: Callable[[Image, NDArray[np.float32]], object]) -> None:
    with np.load(path / GOLDEN_EXPECTED) as expected:
        images, probabilities = expected["images"], expected["probabilities"]
    change(images, probabilities)
    (path / GOLDEN_EXPECTED).write_bytes(expected_npz(images, probabilities))


@pytest.mark.parametrize("engine", ENGINES)
def test_other_outputs_are_those_of_training(bundle: Bundle, engine: EngineName) -> None:
    model = load_model(bundle.path, engine=engine)
    proven_outputs(bundle, model.engine)
    model.engine.close()


@pytest.mark.parametrize("factor", [0.99, 1.01, np.nan])
def test_other_outputs_that_differ_are_refused(bundle: Bundle, factor: float) -> None:
    class Other(Answering):
        def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
            features = bundle.golden.other_outputs["features"][self.next_rows(batch)]
            return {"features": features * np.float32(factor)}

    with pytest.raises(SelfCheckFailed, match="openvino gives other features for the golden pictures than training"):
        proven_outputs(bundle, Other(bundle.golden.probabilities))


def test_an_engine_that_gives_probabilities_alone_says_so(bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match="openvino returns only probabilities"):
        proven_outputs(bundle, Answering(bundle.golden.probabilities))


def test_golden_tensors_are_those_of_training(bundle: Bundle) -> None:
    np.testing.assert_array_equal(check_preprocessing(bundle), bundle.golden.images)


def test_proof_says_how_far_the_engine_is_from_training(bundle: Bundle) -> None:
    answer = bundle.golden.probabilities.copy()
    assert check_probabilities(bundle, Answering(answer)).max_probability_difference == 0
    answer[3, 4] += np.float32(5e-5)
    proof = check_probabilities(bundle, Answering(answer))
    assert proof.pictures == 16
    assert proof.max_probability_difference == pytest.approx(5e-5, rel=0.01)


def test_golden_pictures_are_proven_one_at_a_time(bundle: Bundle) -> None:
    """An engine keeps the memory of its largest batch."""

    class Whole(Answering):
        def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
            rows = self.next_rows(batch)
            return {name: values[rows] for name, values in bundle.golden.other_outputs.items()}

    engine = Whole(bundle.golden.probabilities)
    check_probabilities(bundle, engine)
    assert engine.sizes == [1] * 16
    engine = Whole(bundle.golden.probabilities)
    proven_outputs(bundle, engine)
    assert engine.sizes == [1] * 16


@pytest.mark.parametrize("difference", [2e-4, -2e-4, np.nan, np.inf])
def test_one_probability_that_is_off_fails_the_proof(bundle: Bundle, difference: float) -> None:
    answer = bundle.golden.probabilities.copy()
    answer[15, 9] += np.float32(difference)
    with pytest.raises(
        SelfCheckFailed,
        match=r"openvino gives probabilities for the golden pictures that differ .*\(allowed: 0\.0001\)",
    ):
        check_probabilities(bundle, Answering(answer))


class Recalling:
    """An engine that knows the golden answers, and adds an error to those in batches of one size."""

    name: EngineName = "openvino"

    def __init__(self, bundle: Bundle, *, wrong_size: int = 0, error: float = 0.5) -> None:
        golden = bundle.golden
        self.answers = {
            image.tobytes(): answer for image, answer in zip(golden.images, golden.probabilities, strict=True)
        }
        self.wrong_size, self.error = wrong_size, error
        self.sizes: list[int] = []

    def predict(self, batch: Image) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        answers = np.stack([self.answers[image.tobytes()] for image in batch])
        if len(batch) == self.wrong_size:
            answers[-1] += np.float32(self.error)
        return answers

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("size", [1, 3, 16, 64])
def test_every_golden_picture_is_proven_in_batches_of_a_size(bundle: Bundle, size: int) -> None:
    engine = Recalling(bundle)
    proof = check_batch_size(bundle, engine, size, max_difference=1e-4)
    assert (proof.pictures, proof.max_probability_difference) == (16, 0)
    assert engine.sizes == [size] * -(-16 // size)


@pytest.mark.parametrize("error", [2e-4, np.nan])
def test_a_batch_size_that_changes_the_answers_fails_the_proof(bundle: Bundle, error: float) -> None:
    engine = Recalling(bundle, wrong_size=4, error=error)
    check_batch_size(bundle, engine, 16, max_difference=1e-4)
    with pytest.raises(SelfCheckFailed, match="openvino gives probabilities for the golden pictures that differ"):
        check_batch_size(bundle, engine, 4, max_difference=1e-4)


@pytest.mark.parametrize("shape", [(16, 9), (15, 10), (10, 16), (16, 10, 1)])
def test_answer_of_another_shape_fails_the_proof(bundle: Bundle, shape: tuple[int, ...]) -> None:
    with pytest.raises(SelfCheckFailed, match=r"openvino answers with shape \(.*, not \(16, 10\)"):
        check_probabilities(bundle, Answering(np.zeros(shape, np.float32)))


def test_changed_golden_picture_is_found_by_its_tensor(path: Path, sign: Sign) -> None:
    picture = cv2.imread(str(path / "golden" / "05.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    changed = picture.astype(np.uint8)
    changed[changed.shape[0] // 2, changed.shape[1] // 2] ^= 0x80
    (path / "golden" / "05.png").write_bytes(png(changed))
    sign(path)
    with pytest.raises(SelfCheckFailed, match=r"golden/05\.png is preprocessed differently here than in training"):
        load_model(path)


def test_golden_pictures_that_changed_places_are_found(path: Path, sign: Sign) -> None:
    first, second = path / "golden" / "00.png", path / "golden" / "01.png"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    sign(path)
    with pytest.raises(SelfCheckFailed, match=r"golden/00\.png is preprocessed differently"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut off"])
def test_golden_picture_that_cannot_be_read_is_named(path: Path, sign: Sign, content: bytes) -> None:
    (path / "golden" / "05.png").write_bytes(content)
    sign(path)
    with pytest.raises(SelfCheckFailed, match=r"golden picture golden/05\.png cannot be read: "):
        load_model(path)


def test_lossless_picture_must_match_to_the_level(path: Path, sign: Sign) -> None:
    def change(images: Image, probabilities: NDArray[np.float32]) -> None:
        images[2, 14, 14, 0] ^= 1

    rewrite_expected(path, change)
    sign(path)
    with pytest.raises(SelfCheckFailed, match=r"golden/02\.png .* by up to 1 grey levels \(allowed: 0\)"):
        load_model(path)


@pytest.mark.parametrize(("difference", "passes"), [(1, True), (2, False)])
def test_jpeg_may_differ_by_one_level(path: Path, sign: Sign, difference: int, passes: bool) -> None:
    """Decoders of JPEG differ between builds. The digits are 8x8; their pictures here are grey and 28x28."""
    bundle = open_bundle(path)
    picture = np.clip(bundle.golden.images[2, ..., 0], 9, 246)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    (path / "golden" / "02.png").write_bytes(data)  # bytes decide on the format, not the name
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded is not None

    def change(images: Image, probabilities: NDArray[np.float32]) -> None:
        images[2, ..., 0] = np.where(decoded > 127, decoded - difference, decoded + difference)

    rewrite_expected(path, change)
    sign(path)
    changed = open_bundle(path)
    if passes:
        np.testing.assert_array_equal(check_preprocessing(changed)[2, ..., 0], decoded)
    else:
        with pytest.raises(SelfCheckFailed, match=r"golden/02\.png .* by up to 2 grey levels \(allowed: 1\)"):
            check_preprocessing(changed)


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
@pytest.mark.parametrize("value", [0.5, np.nan, np.inf], ids=str)
def test_changed_golden_probability_is_found(path: Path, sign: Sign, value: float, engine: EngineName) -> None:
    def change(images: Image, probabilities: NDArray[np.float32]) -> None:
        probabilities[7, probabilities[7].argmin()] = value

    rewrite_expected(path, change)
    sign(path)
    with pytest.raises(SelfCheckFailed, match=f"{engine} gives probabilities for the golden pictures that differ"):
        load_model(path, engine=engine)


def test_bundle_whose_golden_check_fails_everywhere_is_refused_as_such(path: Path, sign: Sign) -> None:
    def change(images: Image, probabilities: NDArray[np.float32]) -> None:
        probabilities[:] = probabilities[::-1].copy()

    rewrite_expected(path, change)
    sign(path)
    with pytest.raises(SelfCheckFailed, match="openvino gives probabilities for the golden pictures that differ"):
        load_model(path)
