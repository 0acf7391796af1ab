from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.tensors import Tensors
from training.errors import TrainingError
from training.evaluation.calibration.temperature import (
    calibrate,
    differs_from_one,
    fit_temperature,
    recorded_temperature,
    uncalibrated,
)
from training.model.layers import Conv2D, GlobalAveragePool2D
from training.model.network import build_network
from training.model.tta import average_shifts

Floats = NDArray[np.float64]


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def pictures(count: int, *, temperature: float) -> tuple[Floats, NDArray[np.int64]]:
    """Return logits (`count`, 5) that are too large by that factor, and targets drawn without that."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (count, 5))
    cumulative = softmax(logits).cumsum(axis=1)
    targets = (random.random((count, 1)) > cumulative).sum(axis=1)
    return logits * temperature, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_the_data_is_found(temperature: float) -> None:
    assert fit_temperature(*pictures(5000, temperature=temperature)) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_makes_the_labels_as_likely_as_any_nearby_does() -> None:
    logits, targets = pictures(2000, temperature=2.0)
    found = fit_temperature(logits, targets)

    def nll(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(2000), targets]).sum())

    assert nll(found) < min(nll(found * 1.02), nll(found / 1.02), nll(1.0))


def test_where_all_are_right_the_probabilities_stay_short_of_certainty() -> None:
    logits = np.random.default_rng(0).normal(0, 1, (200, 5))
    found = fit_temperature(logits, logits.argmax(axis=1))
    assert 0.05 < found < 1  # likelihood alone would go to 0


def test_where_all_are_right_for_certain_nothing_changes() -> None:
    targets = np.arange(100) % 5
    assert fit_temperature(np.eye(5)[targets] * 1000, targets) == pytest.approx(1, abs=1e-3)


def test_where_nothing_was_learned_the_bound_holds() -> None:
    random = np.random.default_rng(0)
    found = fit_temperature(random.normal(0, 1000, (300, 5)), random.integers(0, 5, 300))
    assert 10 < found <= 20


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TrainingError, match="not finite"):
        fit_temperature(np.array([[np.nan, 0.0]]), np.array([0]))


@pytest.mark.parametrize(
    ("count", "temperature", "differs"), [(5000, 1.0, False), (100, 1.1, False), (2000, 1.5, True)]
)
def test_a_temperature_near_1_is_told_from_it_by_enough_pictures(count: int, temperature: float, differs: bool) -> None:
    logits, targets = pictures(count, temperature=temperature)
    assert differs_from_one(logits, targets, fit_temperature(logits, targets)) is differs


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_the_uncalibrated_softmax_comes_back(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (100, 10))
    served = softmax(logits / temperature).astype(np.float32)
    assert uncalibrated(served, temperature) == pytest.approx(softmax(logits), abs=1e-6)


def test_a_bundle_from_before_calibration_has_temperature_1() -> None:
    assert recorded_temperature({"preset": "seed"}) == 1.0
    assert recorded_temperature({"calibration": {"temperature": 1.25}}) == 1.25


@pytest.fixture(scope="module")
def network() -> Any:
    """A network that is certain of labels that are drawn by chance: no temperature near 1 suits it."""
    import keras

    keras.utils.set_random_seed(0)
    layers = (Conv2D(4, batch_normalization=True), GlobalAveragePool2D())
    built = build_network(layers, shape=(8, 8, 1), classes=3)
    built.layers[-1].set_weights([weights * 30 for weights in built.layers[-1].get_weights()])
    return built


def validation(count: int) -> Tensors:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 8, 8, 1), np.uint8)
    return Tensors(images, random.integers(0, 3, count), (), ())


@pytest.mark.parametrize("views", ["one", "shifted"])
def test_the_temperature_is_put_into_the_last_layer(network: Any, views: str) -> None:
    calibrated = average_shifts(network) if views == "shifted" else network
    before = calibrated.predict(validation(200).images, verbose=0)
    found = calibrate(calibrated, validation(200), "temperature")
    assert found.method == "temperature"
    assert found.temperature != 1
    after = calibrated.predict(validation(200).images, verbose=0)
    assert uncalibrated(after, found.temperature) == pytest.approx(before, abs=1e-5)


def test_a_network_that_ends_otherwise_is_left_as_it_is() -> None:
    import keras

    other = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Softmax()])
    found = calibrate(other, validation(200), "temperature")
    assert (found.method, found.temperature) == ("none", 1)
    assert "does not end in a Dense layer" in found.reason


def test_few_validation_pictures_give_no_temperature(network: Any) -> None:
    found = calibrate(network, validation(20), "temperature")
    assert found.method == "none"
    assert "20 validation pictures, too few for a temperature" in found.reason
