"""Describe labelled pictures: a `Picture` each, and the `Dataset` with its classes in order.

It does not know where pictures come from (`training.data.sources`), nor how they are split, decoded or learned. A
picture that is a file stays on disk until somebody asks for it.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, get_args

import cv2

from app.contract.preprocessing import Image
from training.errors import DataError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
SPLIT_NAMES_SHOWN = "train, validation (or val, valid) and test"
_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled picture.

    `id` names it within its data on every machine: a posix path, or "train/00042" for a row of an array. `split` is
    what the source says, None if it says nothing. `content` is a file, or (H, W) grey or (H, W, 3) RGB uint8.
    """

    id: str
    label: str
    split: Split | None
    content: Path | Image = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _portable(self.id))
        object.__setattr__(self, "label", _portable(self.label))

    def encoded(self) -> bytes:
        """Return the file's bytes, or the array as PNG, which loses nothing. Raises DataError."""
        if isinstance(self.content, Path):
            try:
                return self.content.read_bytes()
            except OSError as exc:
                raise DataError(f"{self.id} cannot be read: {exc.strerror}.") from exc
        bgr = self.content if self.content.ndim == 2 else self.content[..., ::-1]
        encoded, png = cv2.imencode(".png", bgr)
        if not encoded:
            raise DataError(f"{self.id} cannot be written as PNG (shape {self.content.shape}).")
        return png.tobytes()


@dataclass(frozen=True)
class Dataset:
    """Pictures under one name. `origin` is what the user named, never an absolute path; `labels` is the class order."""

    origin: str
    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @classmethod
    def of(cls, origin: str, pictures: Iterable[Picture]) -> Self:
        """Gather pictures and check that a classifier can be trained on them. Raises DataError."""
        pictures = tuple(pictures)
        if not pictures:
            raise DataError(f"{origin} holds no pictures.")
        labels = sorted_labels(picture.label for picture in pictures)
        if "" in labels:
            raise DataError(f"{origin} has pictures whose label is empty.")
        if len(labels) == 1:
            raise DataError(f"{origin} holds one class ('{labels[0]}'); a classifier needs at least two.")
        trainable = {picture.label for picture in pictures if picture.split in (None, "train")}
        untrained = [label for label in labels if label not in trainable]
        if untrained:
            raise DataError(
                f"{origin} has no training pictures of class '{untrained[0]}': all of them are marked as validation or "
                "test. Every class needs some to learn from."
            )
        seen: set[str] = set()
        for picture in pictures:
            if picture.id in seen:
                raise DataError(f"{origin} lists {picture.id} twice; keep one, or it could be learned and tested on.")
            seen.add(picture.id)
        return cls(origin, labels, pictures)


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels by value if every one is a decimal integer, else by code point."""
    distinct = sorted({_portable(label) for label in labels})
    if all(_DECIMAL.fullmatch(label) for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def split_named(name: str) -> Split | None:
    """Return the split that a folder or a manifest means by `name`, None where it is no split's name."""
    return _SPLIT_NAMES.get(name.casefold())


def _portable(text: str) -> str:
    """Return text as NFC, which macOS and Linux then spell alike; what is not Unicode becomes visible escapes."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.encode("utf-8", "backslashreplace").decode("utf-8"))
