"""What a SavedModel gives beside its probabilities: what its last layer reads, and a map of each class."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from app.contract.bundle import Signature
from app.contract.preprocessing import PreprocessingSpec
from app.engines.engine import GivesOutputs
from app.engines.loading import open_engine
from app.engines.registry import ENGINES, EngineName
from training.model.layers import Conv2D, Dense, Dropout, Flatten, GlobalAveragePool2D, Layer
from training.model.network import build_network
from training.model.saved_model import other_outputs, save
from training.model.tta import average_shifts

SPEC = PreprocessingSpec(height=8, width=12, colour="rgb")
LABELS = ("a", "b", "c")
MEANS: list[Layer] = [Conv2D(4, 3), GlobalAveragePool2D(), Dropout(0.5)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shifted", [False, True])
def test_class_maps_have_the_logits_as_their_means(tmp_path: Path, engine: EngineName, shifted: bool) -> None:
    network = build_network(MEANS, shape=SPEC.shape, classes=len(LABELS))
    network.layers[-1].set_weights([np.random.default_rng(0).normal(size=(4, 3)), np.array([1.0, 0.0, -1.0])])
    network = average_shifts(network) if shifted else network
    signature = Signature.of(SPEC, LABELS, other_outputs(network))
    save(network, tmp_path, signature)
    loaded = open_engine(engine, tmp_path, signature, threads=1)
    assert isinstance(loaded, GivesOutputs)
    images = np.random.default_rng(1).integers(0, 256, (5, *SPEC.shape), np.uint8)
    outputs = loaded.outputs(images)
    assert {name: values.shape for name, values in outputs.items()} == {
        "probabilities": (5, 3),
        "features": (5, 4),
        "class_maps": (5, 6, 10, 3),
    }
    logits = outputs["class_maps"].mean(axis=(1, 2))
    np.testing.assert_allclose(softmax(logits, axis=1), outputs["probabilities"], atol=1e-5)
    np.testing.assert_allclose(loaded.predict(images), outputs["probabilities"], atol=1e-5)
    loaded.close()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (MEANS, {"features": (None, 4), "class_maps": (None, 6, 10, 3)}),
        ([*MEANS, Dense(5)], {"features": (None, 5)}),
        ([Flatten()], {"features": (None, 288)}),
    ],
    ids=["means", "means, then a dense layer", "flat"],
)
def test_there_are_class_maps_if_the_last_layer_reads_means(
    layers: list[Layer], expected: dict[str, tuple[int | None, ...]]
) -> None:
    network = build_network(layers, shape=SPEC.shape, classes=len(LABELS))
    assert {tensor.name: tensor.shape for tensor in other_outputs(network)} == expected
