"""Read IDX files, the format that MNIST, Fashion-MNIST and KMNIST are published in, packed (.gz) or not.

The format is described at http://yann.lecun.com/exdb/mnist/: two zero bytes, a type byte, the number of dimensions,
each dimension as a big-endian uint32, then the values. Only unsigned bytes, 0x08, are read.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from app.contract.preprocessing import Image
from training.data.dataset import Picture, Split
from training.data.sources.arrays import as_labels, pictures_of
from training.errors import DataError

_NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?")
_SPLITS: dict[str, Split] = {"train": "train", "t10k": "test", "test": "test"}
_UNSIGNED_BYTE = 0x08


def is_idx(path: Path) -> bool:
    """Say whether `path` is an IDX file of MNIST's names, or a folder that holds one."""
    if path.is_dir():
        return any(_NAME.fullmatch(entry.name) for entry in path.iterdir())
    return _NAME.fullmatch(path.name) is not None


def read(path: Path) -> list[Picture]:
    """Return the pictures of the IDX files in the folder `path`, or beside the IDX file `path`. Raises DataError."""
    folder = path if path.is_dir() else path.parent
    files = {}
    for entry in sorted(folder.iterdir(), reverse=True):  # an unpacked file comes last and wins over its .gz
        if match := _NAME.fullmatch(entry.name):
            files[_SPLITS[match[1]], match[2]] = entry
    pictures: list[Picture] = []
    for split in dict.fromkeys(("train", *sorted(split for split, _ in files))):
        for kind, dimensions in (("images", 3), ("labels", 1)):
            if (split, kind) not in files:
                prefix = "train" if split == "train" else "t10k"
                raise DataError(f"{folder} holds no {prefix}-{kind}-idx{dimensions}-ubyte, packed (.gz) or not.")
        labels = as_labels(files[split, "labels"].name, _load(files[split, "labels"]))
        pictures += pictures_of(_load(files[split, "images"]), labels, split)
    return pictures


def _load(path: Path) -> Image:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error) as exc:
        raise DataError(f"{path} is damaged or cut off ({exc}). Download it again.") from exc
    if zeros != 0 or kind != _UNSIGNED_BYTE:
        raise DataError(f"{path} is not an IDX file of unsigned bytes: it begins with {data[:4].hex(' ')}.")
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if values.size != math.prod(shape):
        raise DataError(f"{path} is damaged or cut off: it declares {shape} values and holds {values.size}.")
    return values.reshape(shape)
