"""The tutorial's network, computed from its formulas in NumPy, gives the probabilities that the engines give."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.preprocessing import preprocess
from app.engines.loading import LoadedModel, load_model
from app.engines.registry import EngineName
from app.engines.tensorflow import import_tensorflow

Floats = NDArray[np.float64]


def convolution(pictures: Floats, kernel: Floats, bias: Floats) -> Floats:
    """y[i, j, f] = b[f] + the sum over m, n, c of x[i + m, j + n, c] · k[m, n, c, f], where the window is inside."""
    windows = np.lib.stride_tricks.sliding_window_view(pictures, kernel.shape[:2], axis=(1, 2))
    found: Floats = np.einsum("bijcmn,mncf->bijf", windows, kernel, optimize=True) + bias
    return found


def max_pooling(pictures: Floats) -> Floats:
    """y[i, j, c] = the largest of x[2i, 2j, c] … x[2i + 1, 2j + 1, c]; an odd last row or column is left out."""
    height, width = pictures.shape[1] // 2, pictures.shape[2] // 2
    whole = pictures[:, : 2 * height, : 2 * width]
    found: Floats = whole.reshape(len(pictures), height, 2, width, 2, -1).max(axis=(2, 4))
    return found


def relu(values: Floats) -> Floats:
    return np.maximum(values, 0)


def softmax(logits: Floats) -> Floats:
    """p[k] = exp(z[k]) / the sum over j of exp(z[j])."""
    powers = np.exp(logits)
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def seed_network(pictures: NDArray[np.uint8], weights: list[Floats]) -> Floats:
    """Conv 3×3 (32) → pool → conv 3×3 (64) → pool → flatten → dense (64) → dense (10), of uint8 (N, 28, 28, 1)."""
    first, first_bias, second, second_bias, hidden, hidden_bias, last, last_bias = weights
    values = pictures.astype(np.float64) / 255
    values = max_pooling(relu(convolution(values, first, first_bias)))
    values = max_pooling(relu(convolution(values, second, second_bias)))
    values = relu(values.reshape(len(values), -1) @ hidden + hidden_bias)
    return softmax(values @ last + last_bias)


@pytest.fixture(scope="module")
def weights(trained_store: Path) -> list[Floats]:
    """The variables that the SavedModel's signature uses, in the order in which it uses them."""
    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(trained_store / "digits" / "1"))
    return [variable.numpy().astype(np.float64) for variable in loaded.signatures["serving_default"].variables]


@pytest.fixture(scope="module", params=["openvino", "tensorflow"])
def model(request: pytest.FixtureRequest, trained_store: Path) -> Iterator[LoadedModel]:
    name: EngineName = request.param
    loaded = load_model(trained_store / "digits" / "1", engine=name, threads=2)
    yield loaded
    loaded.engine.close()


def test_saved_model_holds_the_weights_of_the_tutorials_network(weights: list[Floats]) -> None:
    shapes = [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (1600, 64), (64,), (64, 10), (10,)]
    assert [values.shape for values in weights] == shapes
    assert sum(values.size for values in weights) == 121_930


def test_formulas_give_the_probabilities_of_the_engine(
    model: LoadedModel, weights: list[Floats], mnist_pictures: list[tuple[Path, str]]
) -> None:
    spec = model.bundle.manifest.preprocessing
    pictures = np.stack([preprocess(file.read_bytes(), spec) for file, _ in mnist_pictures])
    expected = seed_network(pictures, weights)
    assert len(pictures) >= 50
    assert len(set(expected.argmax(axis=1))) > 5  # the pictures tell the classes apart
    np.testing.assert_allclose(model.engine.predict(pictures), expected, atol=1e-5)


def test_formulas_give_the_golden_probabilities(model: LoadedModel, weights: list[Floats]) -> None:
    golden = model.bundle.golden
    np.testing.assert_allclose(golden.probabilities, seed_network(golden.images, weights), atol=1e-5)
