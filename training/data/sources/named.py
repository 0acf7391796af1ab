"""Fetch a well-known data set by its name: through `keras.datasets`, or `digits`, which is part of scikit-learn.

Both libraries are imported only when needed. Keras downloads a file once and keeps it.
"""

from collections.abc import Callable

import numpy as np

from app.errors import EngineUnavailable
from app.system.invocation import installs
from training.data.dataset import Picture, Split
from training.data.sources.arrays import Array, as_labels, as_uint8, pictures_of
from training.errors import DataError

Arrays = tuple[tuple[Array, Array], tuple[Array, Array]]

_CLASSES: dict[str, tuple[str, ...]] = {  # empty: the labels are the numbers themselves
    "mnist": (),
    "fashion_mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "cifar100": (),
}  # fmt: skip
NAMES = ("digits", *_CLASSES)


def _load_with_keras(name: str) -> Arrays:
    from training.tensorflow import keras

    arrays: Arrays = getattr(keras.datasets, name).load_data()
    return arrays


def read(name: str, *, load: Callable[[str], Arrays] = _load_with_keras) -> list[Picture]:
    """Return the pictures of a well-known data set; `load` fetches those of Keras. Raises DataError."""
    if name not in NAMES:
        raise DataError(f"There is no file or folder '{name}', nor a data set of that name: {', '.join(NAMES)}.")
    if name == "digits":
        return _digits()
    try:
        train, test = load(name)
    except EngineUnavailable:
        raise
    except Exception as exc:  # Keras raises bare Exception if a download fails
        raise DataError(f"'{name}' could not be downloaded ({exc}); give --data a path instead.") from exc
    images = as_uint8({"train": train[0], "test": test[0]})
    splits: tuple[tuple[Split, Array], ...] = (("train", train[1]), ("test", test[1]))
    return [
        picture
        for split, labels in splits
        for picture in pictures_of(images[split], as_labels(name, labels, _CLASSES[name]), split)
    ]


def _digits() -> list[Picture]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DataError(f"'digits' comes with scikit-learn: {installs('training')} ({exc}).") from exc
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # levels from 0 to 16
    return pictures_of(images, as_labels("digits", digits.target), None)
