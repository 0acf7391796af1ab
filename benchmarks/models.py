"""Build the bundle of the second workload through training's own export: MobileNetV2 with random weights.

Speed does not see the weights. What it says about pictures means nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from app.engines.engine import Engine
from app.engines.loading import LoadedModel
from app.engines.tensorflow import import_tensorflow
from benchmarks.workload import WORK
from training.dataset import Picture
from training.export import Contents, publish

NAME = "mobilenet"
_SIDE = 224
_LABELS = tuple(str(label) for label in range(10))


def build_mobilenet(pictures: Sequence[Path]) -> LoadedModel:
    """Publish MobileNetV2 (224×224×3, 10 classes) in benchmarks/.work/model_store. `pictures` become golden ones."""
    import_tensorflow()
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((_SIDE, _SIDE, 3), dtype="uint8", name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    backbone = keras.applications.MobileNetV2(input_shape=(_SIDE, _SIDE, 3), weights=None, classes=len(_LABELS))
    network = keras.Model(image, backbone(scaled), name=NAME)
    golden = [Picture(id=file.name, label=_LABELS[0], split="test", content=file) for file in pictures]
    contents = Contents(
        labels=_LABELS,
        preprocessing=PreprocessingSpec(height=_SIDE, width=_SIDE, colour="rgb", resize="stretch"),
        golden=golden,
        training={"command": "python -m benchmarks models", "data": "none: random weights"},
        split={},
        split_csv="",
        measure=lambda engine: _measure(engine, network),
        card=_card,
    )
    (WORK / "model_store").mkdir(parents=True, exist_ok=True)
    return publish(network, contents, ModelStore(WORK / "model_store"), NAME)


def _measure(engine: Engine, network: Any) -> dict[str, Any]:
    engine.predict(np.zeros((1, _SIDE, _SIDE, 3), np.uint8))
    return {
        "train": None,
        "validation": None,
        "test": None,
        "fit_seconds": 0.0,
        "parameters": network.count_params(),
        "epochs": [],
    }


def _card(version: int, _metrics: Mapping[str, Any]) -> str:
    return f"# {NAME} version {version}\n\nMobileNetV2 with random weights, for measuring speed. It knows nothing.\n"
