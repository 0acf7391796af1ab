"""The presets: what the tutorial says, to the letter, and what every preset has to have."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.contract.preprocessing import PreprocessingSpec
from training.errors import OptionError
from training.model.network import build_network
from training.model.preset import Recipe
from training.model.presets import PRESETS, preset_named


def config_of(network: Any) -> list[tuple[str, dict[str, Any]]]:
    kept = ("filters", "kernel_size", "pool_size", "units", "activation", "padding", "scale")
    return [
        (type(layer).__name__, {key: value for key, value in layer.get_config().items() if key in kept})
        for layer in network.layers
    ]


def test_the_seed_preset_is_the_tutorials_network() -> None:
    seed = preset_named("seed")
    network = build_network(seed.layers, shape=(28, 28, 1), classes=10)
    convolution = {"kernel_size": (3, 3), "padding": "valid", "activation": "relu"}
    pool = {"pool_size": (2, 2), "padding": "valid"}
    assert config_of(network) == [
        ("Rescaling", {"scale": 1 / 255}),
        ("Conv2D", {"filters": 32, **convolution}),
        ("MaxPooling2D", pool),
        ("Conv2D", {"filters": 64, **convolution}),
        ("MaxPooling2D", pool),
        ("Flatten", {}),
        ("Dense", {"units": 64, "activation": "relu"}),
        ("Dense", {"units": 10, "activation": "softmax"}),
    ]
    assert network.count_params() == 121_930


def test_the_seed_preset_is_the_tutorials_recipe_and_preprocessing() -> None:
    seed = preset_named("seed")
    assert seed.recipe == Recipe(
        loss="crossentropy", optimizer="adam", learning_rate=0.001, schedule="constant", batch_size=32, epochs=10
    )
    assert seed.preprocessing == PreprocessingSpec(
        height=28, width=28, colour="grey", resize="stretch", interpolation="area", polarity="as_is"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_takes_pictures_of_its_own_size_and_gives_probabilities(name: str) -> None:
    preset = PRESETS[name]
    backbone = preset.backbone and replace(preset.backbone, weights="none")
    network = build_network(preset.layers, shape=preset.preprocessing.shape, classes=7, backbone=backbone)
    pictures = np.random.default_rng(0).integers(0, 256, (3, *preset.preprocessing.shape), np.uint8)
    probabilities = network(pictures, training=False).numpy()
    assert probabilities.shape == (3, 7)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_known_by_its_own_name_and_says_what_it_is_for(name: str) -> None:
    assert PRESETS[name].name == name
    assert PRESETS[name].summary


def test_an_unknown_preset_is_told_which_there_are() -> None:
    with pytest.raises(OptionError, match="seed"):
        preset_named("resnet")


def test_pictures_too_small_for_the_layers_are_refused_in_words() -> None:
    with pytest.raises(OptionError, match="too small"):
        build_network(preset_named("seed").layers, shape=(4, 4, 1), classes=2)
