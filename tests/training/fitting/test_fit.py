"""What a recipe does to a network, on arrays that are made here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from training.data.tensors import Tensors
from training.errors import DivergedError, OptionError
from training.fitting.fit import FitResult, _StepCallback, fit
from training.model.layers import Conv2D, GlobalAveragePool2D
from training.model.network import build_network
from training.model.preset import Recipe
from training.progress import Advance, Reporter

RECIPE = Recipe(optimizer="adam", learning_rate=0.02, batch_size=16, epochs=3)


def stripes(count: int = 96, *, seed: int = 0, wrong: float = 0.0) -> Tensors:
    """Noisy upright and level stripes (8, 8, 1), a share of them with the wrong label."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, count)
    images = random.integers(0, 80, (count, 8, 8, 1))
    images[targets == 0, ::2] += 150
    images[targets == 1, :, ::2] += 150
    is_wrong = random.random(count) < wrong
    return Tensors(images.astype(np.uint8), np.where(is_wrong, 1 - targets, targets).astype(np.int64), (), ())


def network() -> Any:
    keras.utils.set_random_seed(1)
    layers = (Conv2D(4, batch_normalization=True), Conv2D(4, batch_normalization=True), GlobalAveragePool2D())
    return build_network(layers, shape=(8, 8, 1), classes=2)


def trained(recipe: Recipe, **changes: Any) -> tuple[Any, FitResult]:
    given = {"train": stripes(), "validation": stripes(64, seed=1), **changes}
    net = network()
    result = fit(net, recipe, given["train"], given["validation"], classes=2, seed=0, reporter=Reporter())
    return net, result


@pytest.fixture(scope="module")
def plain() -> tuple[Any, FitResult]:
    """A network that `RECIPE` has trained, for tests that only look at it."""
    return trained(RECIPE)


@pytest.fixture(scope="module")
def averaged() -> tuple[Any, FitResult]:
    """The same with averaged weights."""
    return trained(replace(RECIPE, weight_averaging=0.9))


def accuracy(net: Any, on: Tensors) -> float:
    return float((net(on.images, training=False).numpy().argmax(axis=1) == on.targets).mean())


def test_an_epoch_says_what_it_cost_and_reached(plain: tuple[Any, FitResult]) -> None:
    net, result = plain
    assert len(result.epochs) == result.best_epoch == 3
    last = result.epochs[-1]
    assert last.validation_accuracy == pytest.approx(accuracy(net, stripes(64, seed=1)))
    assert last.learning_rate == pytest.approx(0.02)
    assert last.images_per_second == pytest.approx(96 / last.seconds)
    assert last.input_wait is not None
    assert 0 < last.input_wait <= 1


def test_without_validation_pictures_there_are_no_validation_figures() -> None:
    _, result = trained(RECIPE, validation=None)
    assert result.epochs[0].validation_loss is None
    assert result.epochs[0].validation_accuracy is None


def test_averaged_weights_are_what_is_validated_and_left_in_the_network(
    averaged: tuple[Any, FitResult], plain: tuple[Any, FitResult]
) -> None:
    net, result = averaged
    assert result.epochs[-1].validation_accuracy == pytest.approx(accuracy(net, stripes(64, seed=1)))
    assert accuracy(net, stripes(64, seed=1)) > 0.9
    pairs = list(zip(net.get_weights(), plain[0].get_weights(), strict=True))
    assert not any((own == other).all() for own, other in pairs)  # the moving statistics are averaged too


def test_averaging_does_not_disturb_the_training(averaged: tuple[Any, FitResult], plain: tuple[Any, FitResult]) -> None:
    found, expected = ([epoch.loss for epoch in result.epochs] for _, result in (averaged, plain))
    assert found == pytest.approx(expected, rel=1e-4)


def test_early_stopping_takes_the_best_epoch() -> None:
    memorised = stripes(32, wrong=0.4)
    recipe = replace(RECIPE, epochs=60, early_stopping=3, learning_rate=0.05)
    net, result = trained(recipe, train=memorised)
    losses = [epoch.validation_loss or 0 for epoch in result.epochs]
    assert len(result.epochs) < 60
    assert result.best_epoch == 1 + int(np.argmin(losses)) == len(losses) - 3
    held_out = stripes(64, seed=1)
    probabilities = net(held_out.images, training=False).numpy()
    found = -np.log(probabilities[np.arange(64), held_out.targets]).mean()
    assert found == pytest.approx(min(losses), rel=1e-3)


def test_early_stopping_without_validation_pictures_is_refused() -> None:
    with pytest.raises(OptionError, match="--validation"):
        trained(replace(RECIPE, early_stopping=2), validation=None)


def test_bfloat16_is_for_training_alone() -> None:
    net, result = trained(replace(RECIPE, precision="mixed_bfloat16", epochs=4))
    assert result.precision == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in net.layers} == {"float32"}
    assert accuracy(net, stripes(64, seed=1)) > 0.9


def test_balanced_classes_let_the_rare_one_be_found() -> None:
    common, rare = stripes(400), stripes(400, seed=5)
    kept = np.concatenate([np.flatnonzero(common.targets == 0), 400 + np.flatnonzero(rare.targets == 1)[:4]])
    lopsided = Tensors(
        np.concatenate([common.images, rare.images])[kept], np.concatenate([common.targets, rare.targets])[kept], (), ()
    )

    def rare_probability(recipe: Recipe) -> float:
        held_out = stripes(64, seed=1)
        net, _ = trained(recipe, train=lopsided)
        return float(net(held_out.images, training=False).numpy()[held_out.targets == 1, 1].mean())

    recipe = replace(RECIPE, epochs=2)
    assert rare_probability(replace(recipe, class_weights="balanced")) > rare_probability(recipe) + 0.1


def test_many_steps_at_once_train_alike(plain: tuple[Any, FitResult]) -> None:
    one, many = plain[1], trained(replace(RECIPE, steps_per_execution=4))[1]
    assert [epoch.loss for epoch in many.epochs] == pytest.approx([epoch.loss for epoch in one.epochs], rel=1e-4)


def test_progress_counts_the_steps_of_a_last_execution_that_is_not_whole() -> None:
    counted: list[int] = []

    class Counting(Reporter):
        @contextmanager
        def task(self, title: str, total: int) -> Iterator[Advance]:
            yield lambda steps, note: counted.append(steps)
            assert sum(counted) == total

    recipe = replace(RECIPE, steps_per_execution=4)
    fit(network(), recipe, stripes(), None, classes=2, seed=0, reporter=Counting())
    assert counted == [4, 2] * 3


def test_the_figures_of_several_workers_are_arrays_of_one_value() -> None:
    told: list[str] = []
    callback = _StepCallback("epoch 1/1", 1, lambda _, text: told.append(text))
    callback.on_train_batch_end(0, {"loss": np.array([0.5]), "accuracy": np.array([1.0])})
    assert told == ["epoch 1/1, loss 0.5000, accuracy 100.00%"]
    with pytest.raises(DivergedError, match="The loss became nan in epoch 1/1"):
        callback.on_train_batch_end(0, {"loss": np.array([np.nan]), "accuracy": np.array([1.0])})
