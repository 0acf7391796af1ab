"""A network starts from what its backbone knows: a regression, then maps instead of pictures."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from training.data.dataset import Picture
from training.data.tensor_cache import NO_CACHE, TensorCache
from training.data.tensors import Tensors
from training.fitting.batches import Batches
from training.fitting.fit import fit
from training.fitting.transfer import HeadStart, start_from_backbone
from training.model.activations import Activations, open_activations
from training.model.layers import Backbone
from training.model.network import build_network
from training.model.preset import Augmentation
from training.model.presets import PRESETS
from training.progress import Reporter
from training.tensorflow import keras

pytestmark = pytest.mark.slow

SHAPE = (64, 64, 3)
RECIPE = replace(PRESETS["photos"].recipe, epochs=1, batch_size=8)
BACKBONE = Backbone("efficientnet_lite0", fine_tune_from="block15")
Start = tuple[keras.Model, HeadStart, list[str]]


class Heard(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def of_levels(images: np.ndarray, targets: np.ndarray) -> Tensors:
    return Tensors(images, targets, tuple(Picture(str(row), "a", None, image) for row, image in enumerate(images)), ())


def stripes(count: int, *, seed: int) -> Tensors:
    """Upright stripes and lying ones, which stay what they are in the mirror."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    images = np.empty((count, *SHAPE), np.uint8)
    for row, target in enumerate(targets):
        wave = 128 + 100 * np.sin(np.arange(64) * random.uniform(0.5, 1.2) + random.uniform(0, 6))
        picture = np.tile(wave[:, None] if target else wave[None, :], (1, 64) if target else (64, 1))
        images[row] = np.clip(picture[..., None] + random.normal(0, 10, SHAPE), 0, 255)
    return of_levels(images, targets)


def sides(count: int, *, seed: int) -> Tensors:
    """A lean to the left or to the right, which the mirror exchanges."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    images = np.empty((count, *SHAPE), np.uint8)
    for row, target in enumerate(targets):
        lean = across + down if target else across - down
        wave = 128 + 100 * np.sin(lean * random.uniform(0.3, 0.6) + random.uniform(0, 6))
        images[row] = np.clip(wave[..., None] + random.normal(0, 10, SHAPE), 0, 255)
    return of_levels(images, targets)


def started(
    train: Tensors, validation: Tensors | None, *, recipe: Any = RECIPE, backbone: Backbone = BACKBONE
) -> Start:
    keras.utils.set_random_seed(0)
    network = build_network(PRESETS["photos"].layers, shape=SHAPE, classes=2, backbone=backbone)
    heard = Heard()
    start = start_from_backbone(
        network, backbone, recipe, train, validation, classes=2, seed=0, cache=NO_CACHE, reporter=heard
    )
    return network, start, heard.lines


def accuracy(network: keras.Model, tensors: Tensors) -> float:
    return float((np.argmax(network(tensors.images, training=False), axis=1) == tensors.targets).mean())


@pytest.fixture(scope="module", autouse=True)
def _parts_are_compiled_once() -> Iterator[None]:
    """All networks of these tests begin with the same backbone: write and compile each part of it only once."""
    opened: list[tuple[list[np.ndarray], Activations]] = []
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        @contextmanager
        def open_once(network: keras.Model, cache: TensorCache) -> Iterator[Activations]:
            weights = network.get_weights()
            for known, activations in opened:
                if len(known) == len(weights) and all(map(np.array_equal, known, weights)):
                    yield activations
                    return
            opened.append((weights, stack.enter_context(open_activations(network, cache))))
            yield opened[-1][1]

        patch.setattr("training.fitting.transfer.open_activations", open_once)
        yield


@pytest.fixture(scope="module")
def starts() -> dict[bool, Start]:
    """Of stripes, with validation pictures and without."""
    return {True: started(stripes(60, seed=0), stripes(60, seed=1)), False: started(stripes(40, seed=0), None)}


@pytest.mark.parametrize("has_validation", [True, False])
def test_the_head_is_right_before_anything_else_is_trained(has_validation: bool, starts: dict[bool, Start]) -> None:
    held_out = stripes(60, seed=1)
    network, start, lines = starts[has_validation]
    assert accuracy(network, held_out) > 0.9
    assert any(line.startswith("head: softmax regression on 1,280 features") for line in lines)
    assert start.head_accuracy == (pytest.approx(accuracy(network, held_out), abs=0.05) if has_validation else None)


def test_what_is_left_to_train_reads_maps_and_is_the_same_network(starts: dict[bool, Start]) -> None:
    train = stripes(40, seed=0)
    network, start, _ = starts[False]
    assert start.train.images.shape == (40, 2, 2, 192)
    assert start.train.images.dtype == np.float16
    maps = start.train.images.astype(np.float32)
    np.testing.assert_allclose(start.network(maps), network(train.images), atol=0.01)
    whole, before = network.get_weights(), [layer.get_weights() for layer in network.layers[0].layers]
    fit(start.network, start.recipe, start.train, None, classes=2, seed=0, reporter=Heard())
    changed = {
        layer.name
        for layer, old in zip(network.layers[0].layers, before, strict=True)
        if any((a != b).any() for a, b in zip(old, layer.get_weights(), strict=True))
    }
    network.set_weights(whole)  # other tests look at this start too
    assert "block15_expand_conv" in changed
    assert not any(name.startswith(tuple(f"block{block}_" for block in range(11))) for name in changed)
    assert not any(name.endswith("_bn") for name in changed)


def test_an_augmentation_that_maps_cannot_have_reads_pictures() -> None:
    train = stripes(16, seed=0)
    recipe = replace(RECIPE, augmentation=Augmentation(mirror=True, rotation_degrees=10))
    network, start, _ = started(train, None, recipe=recipe)
    assert start.network is network
    assert start.train is train


def test_pictures_that_are_others_in_the_mirror_are_not_mirrored(starts: dict[bool, Start]) -> None:
    _, start, lines = started(sides(60, seed=0), sides(60, seed=1))
    assert start.recipe.augmentation == Augmentation(mirror=False)
    assert any("mirror images are not learned" in line for line in lines)
    _, start, lines = starts[True]
    assert start.recipe.augmentation == Augmentation(mirror=True)
    assert not any("mirror images are not learned" in line for line in lines)


def mean_probability(recipe: Any, learned: Tensors, asked: Tensors) -> float:
    """Of the second class, for its pictures, as the regression gives it."""
    network, _, _ = started(learned, None, recipe=recipe)
    return float(np.asarray(network(asked.images, training=False))[asked.targets == 1, 1].mean())


def test_class_weights_and_label_smoothing_are_those_of_the_regression_too() -> None:
    every, asked = stripes(48, seed=0), stripes(24, seed=1)
    rows = np.flatnonzero((every.targets == 0) | (np.arange(48) < 8))
    uneven = replace(every, images=every.images[rows], targets=every.targets[rows])
    recipe = replace(RECIPE, label_smoothing=0.0)
    plain = mean_probability(recipe, uneven, asked)
    balanced = mean_probability(replace(recipe, class_weights="balanced"), uneven, asked)
    assert 1 - balanced < 0.5 * (1 - plain)
    assert mean_probability(replace(recipe, label_smoothing=0.4), uneven, asked) < plain - 0.05


def test_fine_tuning_from_maps_mixes_weighs_and_stops_early() -> None:
    recipe = replace(RECIPE, epochs=4, mixup=0.4, class_weights="balanced", early_stopping=1, learning_rate=1e-9)
    held_out = stripes(24, seed=1)
    network, start, _ = started(stripes(40, seed=0), held_out, recipe=recipe)
    batches = Batches(start.train, start.recipe, classes=2, seed=0)
    maps, targets, weights = next(iter(batches.epoch(0)))
    assert maps.shape == (8, 2, 2, 192)
    assert weights.shape == (8,)
    assert ((np.asarray(targets) > 0.06) & (np.asarray(targets) < 0.94)).any(), "smoothing alone gives 0.05 and 0.95"
    result = fit(start.network, start.recipe, start.train, start.validation, classes=2, seed=0, reporter=Heard())
    assert len(result.epochs) < 4
    assert result.best_epoch < len(result.epochs)
    assert accuracy(network, held_out) > 0.9
