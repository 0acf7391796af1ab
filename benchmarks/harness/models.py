"""Build the bundles of the larger networks through training's own export, with random weights or a random last layer.

Speed does not depend on the weights. The answers mean nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.contract.store import ModelStore
from app.engines.loading import LoadedModel
from benchmarks.harness.workload import WORK
from training.bundling.export import open_draft
from training.data.dataset import Picture
from training.model.network import build_network
from training.model.presets.photos import PHOTOS
from training.tensorflow import keras

_SIDE = 224
_LABELS = tuple(str(label) for label in range(10))
_NETWORKS = {
    "mobilenet": "MobileNetV2",
    "resnet50": "ResNet50",
    "lite0": "EfficientNet-Lite0",
    "lite0-reduced": "EfficientNet-Lite0",
}


def build(name: str, pictures: Sequence[Path]) -> LoadedModel:
    """Publish a network (224×224×3, 10 classes) in benchmarks/.work/model_store. `pictures` become golden ones."""
    keras.utils.set_random_seed(0)
    architecture = _NETWORKS[name]
    spec = PreprocessingSpec(height=_SIDE, width=_SIDE, colour="rgb", resize="stretch")
    if name == "lite0-reduced":
        spec = PreprocessingSpec(**{**spec.model_dump(), "version": 2, "jpeg_scale": "reduced"})
    if architecture == "EfficientNet-Lite0":
        network = build_network(PHOTOS.layers, shape=spec.shape, classes=len(_LABELS), backbone=PHOTOS.backbone)
    else:
        network = _random(name, architecture, np.stack([preprocess(file.read_bytes(), spec) for file in pictures]))
    golden = [Picture(id=file.name, label=_LABELS[0], split="test", content=file) for file in pictures]
    (WORK / "model_store").mkdir(parents=True, exist_ok=True)
    with open_draft(ModelStore(WORK / "model_store"), name, labels=_LABELS, preprocessing=spec) as draft:
        draft.save(network, golden)
        return draft.publish(
            metrics=_metrics(network),
            card=_card(name, architecture, draft.version),
            report=None,
            training={"command": "python -m benchmarks models", "data": "none"},
            split={},
            split_csv="",
        )


def _random(name: str, architecture: str, batch: NDArray[np.uint8]) -> keras.Model:
    image = keras.Input(batch.shape[1:], dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    backbone = getattr(keras.applications, architecture)(
        input_shape=batch.shape[1:], weights=None, classes=len(_LABELS)
    )
    network = keras.Model(image, backbone(scaled), name=name)
    _normalise(network, backbone, batch)
    return network


def _normalise(network: Any, backbone: Any, batch: NDArray[np.uint8]) -> None:
    """Set the batch normalisation's statistics to those of a batch of real pictures.

    Otherwise activations vanish from layer to layer, every picture gets the same answer, and a comparison of answers
    means nothing.
    """
    layers = [layer for layer in backbone.layers if hasattr(layer, "moving_variance")]
    for layer in layers:
        layer.momentum = 0.0
    network(batch, training=True)
    for layer in layers:
        layer.momentum = 0.99


def _metrics(network: Any) -> dict[str, Any]:
    return {
        "train": None,
        "validation": None,
        "test": None,
        "fit_seconds": 0.0,
        "parameters": network.count_params(),
        "epochs": [],
    }


def _card(name: str, architecture: str, version: int) -> str:
    return f"# {name} version {version}\n\n{architecture}, for measuring speed. It knows nothing.\n"
