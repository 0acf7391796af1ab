"""Build the bundles of the larger networks through training's own export, with random weights.

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
from training.tensorflow import keras

_SIDE = 224
_LABELS = tuple(str(label) for label in range(10))
_NETWORKS = {"mobilenet": "MobileNetV2", "resnet50": "ResNet50"}


def build(name: str, pictures: Sequence[Path]) -> LoadedModel:
    """Publish a network (224×224×3, 10 classes) in benchmarks/.work/model_store. `pictures` become golden ones."""
    keras.utils.set_random_seed(0)
    architecture = _NETWORKS[name]
    image = keras.Input((_SIDE, _SIDE, 3), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    backbone = getattr(keras.applications, architecture)(
        input_shape=(_SIDE, _SIDE, 3), weights=None, classes=len(_LABELS)
    )
    network = keras.Model(image, backbone(scaled), name=name)
    spec = PreprocessingSpec(height=_SIDE, width=_SIDE, colour="rgb", resize="stretch")
    _normalise(network, backbone, np.stack([preprocess(file.read_bytes(), spec) for file in pictures]))
    golden = [Picture(id=file.name, label=_LABELS[0], split="test", content=file) for file in pictures]
    (WORK / "model_store").mkdir(parents=True, exist_ok=True)
    with open_draft(ModelStore(WORK / "model_store"), name, labels=_LABELS, preprocessing=spec) as draft:
        draft.save(network, golden)
        return draft.publish(
            metrics=_metrics(network),
            card=_card(name, architecture, draft.version),
            report=None,
            training={"command": "python -m benchmarks models", "data": "none: random weights"},
            split={},
            split_csv="",
        )


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
    return f"# {name} version {version}\n\n{architecture} with random weights, for measuring speed. It knows nothing.\n"
