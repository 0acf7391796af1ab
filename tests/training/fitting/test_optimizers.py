"""How the learning rate goes, and which weights decay."""

import keras
import numpy as np
import pytest

from training.fitting.optimizers import optimizer_of, rate_schedule
from training.model.preset import Recipe


def rates(schedule: object, steps: int) -> list[float]:
    assert callable(schedule)
    return [float(schedule(step)) for step in range(steps + 1)]


def test_a_constant_rate_is_a_number() -> None:
    assert rate_schedule("constant", None, peak=0.1, steps=10) == 0.1


def test_one_cycle_climbs_for_a_fifth_and_falls_to_nothing() -> None:
    found = rates(rate_schedule("one_cycle", None, peak=1.0, steps=100), 100)
    assert found[0] == pytest.approx(1 / 25)
    assert found[20] == pytest.approx(1.0)
    assert found[100] == pytest.approx(0.0, abs=1e-6)
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)


def test_cosine_starts_at_its_peak_and_falls_to_nothing() -> None:
    found = rates(rate_schedule("cosine", None, peak=1.0, steps=100), 100)
    assert found[0] == pytest.approx(1.0)
    assert found[50] == pytest.approx(0.5)
    assert found[100] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_climbs_from_nothing(schedule: str) -> None:
    found = rates(rate_schedule(schedule, 0.1, peak=1.0, steps=100), 100)  # type: ignore[arg-type]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[5] == pytest.approx(0.5)
    assert found[10] == pytest.approx(1.0)
    assert found[100] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_kernels_decay_and_offsets_do_not(name: str) -> None:
    kernel, offset = keras.Variable(np.ones((2, 2), np.float32)), keras.Variable(np.ones(2, np.float32))
    recipe = Recipe(optimizer=name, learning_rate=0.1, weight_decay=0.5)  # type: ignore[arg-type]
    optimizer = optimizer_of(recipe, [kernel, offset], steps=1)
    optimizer.apply([np.zeros((2, 2), np.float32), np.zeros(2, np.float32)], [kernel, offset])
    assert kernel.numpy() == pytest.approx(0.95)
    assert offset.numpy() == pytest.approx(1.0)
