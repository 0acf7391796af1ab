"""Features of photos are kept, piece by piece, where a training looks for them."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.contract.preprocessing import PreprocessingSpec, prepare
from tests.training.audit.conftest import scene
from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.model import photo_features
from training.model.activations import open_activations
from training.model.layers import Backbone
from training.model.network import build_network, divide_network
from training.model.presets.photos import PHOTOS
from training.progress import Reporter
from training.tensorflow import keras

SPEC = PreprocessingSpec(version=2, height=64, width=64, colour="rgb", resize="crop")
UNTRAINED = Backbone("efficientnet_lite0", fine_tune_from="block11", weights="none")


@pytest.fixture(autouse=True)
def small_and_untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_features, "PHOTOS", replace(PHOTOS, preprocessing=SPEC, backbone=UNTRAINED))
    monkeypatch.setattr(photo_features, "_AT_ONCE", 4)


def network(classes: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_network(PHOTOS.layers, shape=SPEC.shape, classes=classes, backbone=UNTRAINED)


def test_features_are_the_networks_and_a_training_finds_its_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = []
    for row in range(6):
        file = tmp_path / f"{row}.png"
        file.write_bytes(cv2.imencode(".png", scene(row, 80))[1].tobytes())
        photos.append(Picture(file.name, "ab"[row % 2], None, file))
    cache = TensorCache(tmp_path / "cache")
    keras.utils.set_random_seed(0)
    features = photo_features.photo_features(photos, cache, Reporter())
    assert features.shape == (6, 1280)

    images = np.stack([prepare(scene(row, 80)[..., ::-1], SPEC) for row in range(6)])
    whole = network(classes=5)
    expected = keras.Sequential(whole.layers[:-1]).predict(images, verbose=0)
    np.testing.assert_allclose(features, expected, atol=2e-2, rtol=2e-2)

    def computed(*_args: object) -> None:
        raise AssertionError("maps were computed again")

    front, _ = divide_network(whole, UNTRAINED.fine_tune_from)
    monkeypatch.setattr("training.model.activations.save", computed)
    with open_activations(front, cache) as first_layers:
        assert len(first_layers.of(images)) == 6
