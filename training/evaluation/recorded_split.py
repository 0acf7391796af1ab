"""Find by a bundle's recorded split which pictures it was trained on, and which to measure it on."""

from collections.abc import Sequence
from typing import Literal

from app.contract.bundle import Bundle
from training.data.dataset import Dataset, Picture, Split
from training.data.split import read_split_file, read_splits, recorded_pictures
from training.errors import DataError


def choose_pictures(dataset: Dataset, bundle: Bundle, split: Split | Literal["all"]) -> tuple[list[Picture], str]:
    """Return the pictures to measure on, and their description in words.

    `split` is the bundle's recorded one if the data is that of its training, else the source's own. Data that has
    neither is measured whole. Raises DataError if the data lacks that split, or has lost pictures.
    """
    if split == "all":
        return list(dataset.pictures), "all pictures"
    marked = [picture for picture in dataset.pictures if picture.split == split]
    try:
        record = _record(bundle, dataset.origin)
        pictures = [] if record is None else recorded_pictures(dataset, record, split)
    except DataError:
        if not marked:
            raise
        pictures = []
    if pictures:
        return pictures, f"the {split} pictures on record in the bundle"
    if marked:
        return marked, f"the {split} pictures of the source"
    if any(picture.split is not None for picture in dataset.pictures):
        raise DataError(f"{dataset.origin} has no {split} pictures. Give --split train, or --split all.")
    return list(dataset.pictures), "all pictures (the data has no split, and is not what the model was trained on)"


def learned_ids(bundle: Bundle) -> set[str]:
    """Return the ids of the pictures that the bundle was trained on, by its record. Raises DataError."""
    record = read_split_file(bundle.path)
    splits = {} if record is None else read_splits(record)
    return {picture_id for picture_id, split in splits.items() if split == "train"}


def learned_pictures(bundle: Bundle, origin: str, pictures: Sequence[Picture]) -> int:
    """Return how many of the pictures of the data `origin` the bundle was trained on, by its record."""
    if bundle.manifest.training.get("data") != origin:
        return 0
    try:
        learned = learned_ids(bundle)
    except DataError:
        return 0
    return sum(picture.id in learned for picture in pictures)


def _record(bundle: Bundle, origin: str) -> str | None:
    """Return the bundle's split file if it was trained on the data `origin`, else None. Raises DataError."""
    return read_split_file(bundle.path) if bundle.manifest.training.get("data") == origin else None
