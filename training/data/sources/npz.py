"""Read an .npz file in the layout of Keras's own data sets: x_train, y_train and, if present, x_test, y_test, x_val, …

It never unpickles, so opening an untrusted file runs no code.
"""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from training.data.dataset import Picture, Split, split_named
from training.data.sources.arrays import Array, as_labels, as_uint8, pictures_of
from training.errors import DataError

_LAYOUT = "x_train and y_train, and if there, x_test and y_test, x_validation (or x_val) and y_validation (or y_val)"


def read(path: Path) -> list[Picture]:
    """Return the pictures of the file's splits. Raises DataError."""
    arrays, splits = _load(path)
    images = as_uint8({f"x_{suffix}": arrays[f"x_{suffix}"] for suffix in splits})
    return [
        picture
        for suffix, split in splits.items()
        for picture in pictures_of(images[f"x_{suffix}"], as_labels(f"y_{suffix}", arrays[f"y_{suffix}"]), split)
    ]


def _load(path: Path) -> tuple[dict[str, Array], dict[str, Split]]:
    """Return the arrays that are needed, and the split of each suffix of their names, such as "val" in x_val and
    y_val."""
    try:
        with path.open("rb") as stream:  # np.load would leave a damaged file open
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an .npz file. Needed are {_LAYOUT}.")
            splits = _splits(path, file.files)
            return {name: file[name] for suffix in splits for name in (f"x_{suffix}", f"y_{suffix}")}, splits
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"{path} cannot be read as .npz: {exc}.") from exc


def _splits(path: Path, names: Iterable[str]) -> dict[str, Split]:
    splits: dict[str, Split] = {"train": "train"}
    for name in names:
        kind, _, suffix = name.partition("_")
        split = split_named(suffix)
        if kind in ("x", "y") and split is not None:
            splits[suffix] = split
    missing = [name for suffix in splits for name in (f"x_{suffix}", f"y_{suffix}") if name not in names]
    if missing:
        found = ", ".join(names) or "nothing"
        raise DataError(f"{path} holds {found}, but not {' and '.join(missing)}. Needed are {_LAYOUT}.")
    if len(set(splits.values())) != len(splits):
        raise DataError(f"{path} holds one split under two names ({', '.join(splits)}); keep one.")
    return splits
