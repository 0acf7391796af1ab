"""Turn an array of pictures and an array of labels into `Picture`s. It knows no file format."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image
from app.system.wording import count_of
from training.data.dataset import Picture, Split
from training.errors import DataError

Array = NDArray[Any]


def pictures_of(images: Image, labels: Sequence[str], split: Split | None) -> list[Picture]:
    """Return a picture per row of `images`, (N, H, W), (N, H, W, 1) or (N, H, W, 3). Raises DataError."""
    what = split or "all"
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim != 3 and not (images.ndim == 4 and images.shape[3] == 3):
        raise DataError(
            f"The {what} pictures have the shape {images.shape}; needed is (N, H, W), (N, H, W, 1) or (N, H, W, 3)."
        )
    if 0 in images.shape[1:]:
        raise DataError(f"The {what} pictures have no pixels (shape {images.shape}).")
    if len(images) != len(labels):
        raise DataError(f"There are {count_of(len(images), f'{what} picture')} but {count_of(len(labels), 'label')}.")
    return [Picture(f"{what}/{row:05d}", label, split, images[row]) for row, label in enumerate(labels)]


def as_uint8(arrays: Mapping[str, Array]) -> dict[str, Image]:
    """Return pictures in 0 to 255; floats are taken as [0, 1] if those of every array are. Raises DataError."""
    unit_range = all(_within(array, 1) for array in arrays.values() if array.dtype.kind == "f")
    return {name: _as_uint8(name, array, unit_range) for name, array in arrays.items()}


def as_labels(name: str, array: Array, names: Sequence[str] = ()) -> list[str]:
    """Return labels (N,) or (N, 1) as strings; `names`, if given, are the labels for which integers stand.

    Raises DataError.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{name} has the shape {array.shape}; needed is one label per picture, (N,) or (N, 1).")
    if array.dtype.kind not in "iuU":
        raise DataError(f"{name} holds {array.dtype}; labels are integers or strings.")
    values = array.tolist()
    return [names[value] for value in values] if names else [str(value) for value in values]


def _as_uint8(name: str, array: Array, unit_range: bool) -> Image:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and unit_range:
        scaled: Image = np.rint(array * 255).astype(np.uint8)
        return scaled
    if array.dtype.kind in "iuf" and _within(array, 255):
        levels: Image = array.astype(np.uint8)
        if np.array_equal(levels, array):
            return levels
    found = f" from {array.min()} to {array.max()}" if array.size and array.dtype.kind in "iuf" else ""
    raise DataError(f"{name} holds {array.dtype}{found}; needed are whole numbers from 0 to 255, or floats in [0, 1].")


def _within(array: Array, top: int) -> bool:
    return array.size == 0 or bool(array.min() >= 0 and array.max() <= top)  # False for NaN
