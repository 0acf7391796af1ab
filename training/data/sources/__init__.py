"""Open labelled pictures, whatever they lie in: folders, Keras's .npz, MNIST's IDX files, a CSV manifest, or a name.

It chooses the reader and knows no format itself. Files of pictures are listed, not read.
"""

from pathlib import Path

from training.data.dataset import Dataset
from training.data.sources import csv_manifest, folder, idx, named, npz
from training.errors import DataError

__all__ = ["open_data"]


def open_data(data: str) -> Dataset:
    """Return the data set at the path `data`, or if nothing is there, the known one of that name. Raises DataError."""
    path = Path(data)
    try:
        if not data or not path.exists():
            return Dataset.of(data, named.read(data))
        origin = path.name if path.name not in ("", "..") else path.resolve().name
        if idx.is_idx(path):
            return Dataset.of(origin, idx.read(path))
        if path.is_dir():
            return Dataset.of(origin, folder.read(path))
        match path.suffix.lower():
            case ".npz":
                return Dataset.of(origin, npz.read(path))
            case ".csv":
                return Dataset.of(origin, csv_manifest.read(path))
    except OSError as exc:
        raise DataError(f"{exc.filename or data} cannot be read: {exc.strerror or exc}.") from exc
    raise DataError(
        f"{data} is not data that can be read: name a folder with one sub-folder per class, an .npz file, "
        "MNIST's IDX files, or a .csv manifest (unpack an archive first)."
    )
