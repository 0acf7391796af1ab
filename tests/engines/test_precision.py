"""bfloat16 serves only where the model's answers stay what they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.bundle import Bundle, open_bundle
from app.contract.preprocessing import Image
from app.engines import openvino
from app.engines.loading import LoadedModel, load_model
from app.engines.precision import MAX_BF16_DIFFERENCE, check_precision
from app.engines.registry import EngineName
from app.errors import EngineUnavailable, SelfCheckFailed


class Linear:
    """An engine of ten classes, of which one of the first three wins, that moves one probability by `moved`."""

    name: EngineName = "openvino"

    def __init__(self, *, moved: float = 0.0, swapped: bool = False) -> None:
        self.moved, self.swapped = moved, swapped
        self.closed = False

    def predict(self, batch: Image) -> NDArray[np.float32]:
        answers = np.full((len(batch), 10), 0.05, np.float32)
        best = batch.reshape(len(batch), -1).sum(axis=1) % 3
        answers[np.arange(len(batch)), best] = 0.5
        if self.swapped:
            answers[0] = answers[0, ::-1]
        answers[-1, 9] += np.float32(self.moved)
        return answers

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


# The gate


def test_the_same_answers_pass(bundle: Bundle) -> None:
    assert check_precision(bundle, Linear(), Linear()) == 0


def test_a_probability_that_moves_a_little_passes_and_is_told(bundle: Bundle) -> None:
    assert check_precision(bundle, Linear(), Linear(moved=0.01)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("moved", [0.021, -0.021, np.nan])
def test_a_probability_that_moves_too_far_is_refused(bundle: Bundle, moved: float) -> None:
    with pytest.raises(SelfCheckFailed, match=rf"allowed: 0 labels, {MAX_BF16_DIFFERENCE:g}"):
        check_precision(bundle, Linear(), Linear(moved=moved))


def test_a_label_that_changes_is_refused_however_little_its_probability_moved(bundle: Bundle) -> None:
    class OnTheEdge(Linear):
        def predict(self, batch: Image) -> NDArray[np.float32]:
            answers = np.full((len(batch), 10), 0.1, np.float32)
            answers[:, 3 if self.swapped else 4] += np.float32(0.001)
            return answers

    with pytest.raises(SelfCheckFailed, match=r"bfloat16 changes 224 labels of 224"):
        check_precision(bundle, OnTheEdge(), OnTheEdge(swapped=True))


def test_more_than_the_golden_pictures_are_compared(bundle: Bundle) -> None:
    seen: set[bytes] = set()

    class Watching(Linear):
        def predict(self, batch: Image) -> NDArray[np.float32]:
            seen.update(image.tobytes() for image in batch)
            return super().predict(batch)

    check_precision(bundle, Linear(), Watching())
    assert {image.tobytes() for image in bundle.golden.images} <= seen
    assert len(seen) > 5 * len(bundle.golden.images)


# Loading


def load(trained_store: Path, **how: Any) -> LoadedModel:
    return load_model(trained_store / "digits" / "1", threads=2, **how)


def test_f32_is_what_is_set_unless_told_otherwise(trained_store: Path) -> None:
    model = load(trained_store, engine="openvino")
    assert (model.precision, model.precision_reason) == ("f32", "set to f32")
    assert model.max_probability_difference == 1e-4
    model.engine.close()


def test_a_cpu_without_bf16_stays_with_f32_and_says_so(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "cpu_has_bf16", lambda: False)
    model = load(trained_store, precision="auto")
    assert (model.precision, model.precision_reason) == ("f32", "this CPU has no bf16")
    model.engine.close()


def test_tensorflow_runs_in_f32_only(trained_store: Path) -> None:
    model = load(trained_store, engine="tensorflow", precision="auto")
    assert (model.precision, model.precision_reason) == ("f32", "tensorflow runs in f32 only")
    model.engine.close()


class Recalling(Linear):
    """An engine in bfloat16: the exact one's answers, moved by an error."""

    def __init__(self, exact: Any, moved: float) -> None:
        super().__init__(moved=moved)
        self.exact = exact

    def predict(self, batch: Image) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = self.exact.predict(batch)
        answers[-1, answers[-1].argmax()] -= np.float32(self.moved)
        return answers


Install = Callable[[float], Recalling]


@pytest.fixture
def install(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return the function that puts an engine in the place of OpenVINO in bfloat16, on a CPU that has it."""

    exact = openvino.open_openvino

    def put(moved: float) -> Recalling:
        engine = Recalling(load(trained_store, engine="openvino").engine, moved)

        def factory(*given: Any, precision: str, **more: Any) -> Any:
            return engine if precision == "bf16" else exact(*given, precision="f32", **more)

        monkeypatch.setattr(openvino, "open_openvino", factory)
        return engine

    monkeypatch.setattr(openvino, "cpu_has_bf16", lambda: True)
    return put


def test_bf16_is_taken_where_it_passes_the_gate(trained_store: Path, install: Install) -> None:
    fast = install(0.003)
    model = load(trained_store, precision="auto")
    assert isinstance(model.engine, Recalling)
    assert model.precision == "bf16"
    assert model.precision_reason.startswith("bf16 keeps every label and moves probabilities by at most 0.003")
    assert model.max_probability_difference == MAX_BF16_DIFFERENCE
    assert model.proof.max_probability_difference == pytest.approx(0.003, abs=1e-4)
    assert not fast.closed


def test_bf16_that_fails_the_gate_is_closed_and_f32_serves(trained_store: Path, install: Install) -> None:
    fast = install(0.05)
    model = load(trained_store, precision="auto")
    assert fast.closed
    assert model.precision == "f32"
    assert "moves probabilities by up to 0.05" in model.precision_reason
    np.testing.assert_allclose(
        model.engine.predict(model.bundle.golden.images), model.bundle.golden.probabilities, atol=1e-4
    )
    model.engine.close()


def test_bf16_that_cannot_be_compiled_leaves_f32(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = openvino.open_openvino

    def cannot(*given: Any, precision: str, **more: Any) -> Any:
        if precision == "bf16":
            raise EngineUnavailable("OpenVINO cannot run this.")
        return exact(*given, precision="f32", **more)

    monkeypatch.setattr(openvino, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(openvino, "open_openvino", cannot)
    model = load(trained_store, precision="auto")
    assert (model.precision, model.precision_reason) == ("f32", "OpenVINO cannot run this.")
    model.engine.close()
