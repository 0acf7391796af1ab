"""Read an archive of class folders."""

from pathlib import Path

from app.contract.archives import DEFAULT_BOUNDS, Bounds, in_archive
from app.errors import UnusableSource
from training.data.dataset import Listing
from training.data.sources.layout import labelled
from training.errors import DataError


def read(path: Path, *, bounds: Bounds = DEFAULT_BOUNDS) -> Listing:
    """Return the pictures of an archive that holds class folders, or one folder with class folders.

    Raises DataError.
    """
    try:
        root = in_archive(path, bounds=bounds)
    except UnusableSource as exc:
        raise DataError(str(exc)) from exc
    return labelled(root, str(path), enters=True)
