"""Read a folder of class folders. Pictures are listed, not read."""

from pathlib import Path

from app.contract.picture_tree import on_disk
from training.data.dataset import Listing
from training.data.sources.layout import labelled


def read(root: Path) -> Listing:
    """Return the pictures below `root`, sorted by id. Raises DataError if it has no classes."""
    return labelled(on_disk(root), str(root))
