"""Labelled pictures: `Picture`, and `Dataset` with its classes in order.

It does not know where pictures come from (`training.data.sources`), nor how they are split, decoded or used for
training. A picture that is a file stays on disk until it is read.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import cv2
import numpy as np

from app.contract.picture_files import LeftOut, describe_left_out
from app.contract.picture_tree import PackedFile, StoredFile
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
    content: StoredFile | Image = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _portable(self.id))
        object.__setattr__(self, "label", _portable(self.label))

    def encoded(self) -> bytes:
        """Return the file's bytes, or the array as PNG, which loses nothing. Raises DataError."""
        if not isinstance(self.content, np.ndarray):
            return self.begin(-1)
        bgr = self.content if self.content.ndim == 2 else self.content[..., ::-1]
        encoded, png = cv2.imencode(".png", bgr)
        if not encoded:
            raise DataError(f"{self.id} cannot be written as PNG (shape {self.content.shape}).")
        return png.tobytes()

    def begin(self, size: int) -> bytes:
        """Return the first `size` bytes of `encoded`, or all of them if `size` is negative. Raises DataError."""
        if isinstance(self.content, np.ndarray):
            return self.encoded()[:size]
        try:
            if isinstance(self.content, PackedFile):
                return self.content.read(size)
            with self.content.open("rb") as stream:
                return stream.read(size)
        except OSError as exc:
            raise DataError(f"{self.id} cannot be read: {exc.strerror}.") from exc


@dataclass(frozen=True)
class Decided:
    """A person's decisions about the pictures of a source, by id.

    `dropped` pictures are excluded from the data. `was` has, for relabelled pictures, the label of the source. `kept`
    has, for each check, the pictures that the person decided to keep: each with "" for a finding about it alone, or
    with the id of the other picture of a pair.
    """

    dropped: tuple[Picture, ...] = ()
    was: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)

    def settles(self, check: str, pictures: Sequence[str]) -> bool:
        """Say whether a person has answered this check's finding about these pictures."""
        kept = self.kept.get(check)
        if not kept:
            return False
        if len(pictures) == 1:
            return (pictures[0], "") in kept
        return any(all(one == other or kept & {(one, other), (other, one)} for other in pictures) for one in pictures)


@dataclass
class Listing:
    """What a source holds.

    `left_out` names files by their paths within the source. Each of the `faults` is a sentence that says why the data
    cannot be trained on as it is.
    """

    pictures: list[Picture] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    decided: Decided = field(default_factory=Decided)


@dataclass(frozen=True)
class Dataset:
    """Pictures under one name.

    `origin` is the name that the user gave, never an absolute path; `labels` is the class order. `left_out` are files
    of the source that are not pictures; `faults` are problems that only an audit tolerates.
    """

    origin: str
    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...] = ()
    faults: tuple[str, ...] = ()
    decided: Decided = field(default_factory=Decided)

    @classmethod
    def of(cls, origin: str, found: Listing | Iterable[Picture], *, tolerant: bool = False) -> Self:
        """Gather pictures and check that a classifier can be trained on them.

        Raises DataError for a fault. If faults are tolerated, they are kept with the data, and the first of several
        pictures with one id is used.
        """
        listing = found if isinstance(found, Listing) else Listing(list(found))
        left_out, faults = tuple(listing.left_out), list(listing.faults)
        if not listing.pictures:
            named = f" ({describe_left_out(left_out)})" if left_out else ""
            raise DataError(_first_of([*faults, f"{origin} holds no pictures{named}."]))
        labels = sorted_labels(picture.label for picture in listing.pictures)
        faults += _faults(origin, labels, listing.pictures)
        if faults and not tolerant:
            raise DataError(_first_of(faults))
        kept: dict[str, Picture] = {}
        for picture in listing.pictures:
            kept.setdefault(picture.id, picture)
        return cls(origin, labels, tuple(kept.values()), left_out, tuple(faults), listing.decided)

    def of_source(self) -> list[Picture]:
        """Return the pictures as the source has them, before a person decided about them."""
        was = self.decided.was
        return [*(replace(each, label=was.get(each.id, each.label)) for each in self.pictures), *self.decided.dropped]


def _faults(origin: str, labels: Sequence[str], pictures: Sequence[Picture]) -> Iterator[str]:
    if "" in labels:
        yield f"{origin} has pictures whose label is empty."
    if len(labels) == 1:
        yield f"{origin} holds one class ('{labels[0]}'); a classifier needs at least two."
    trainable = {picture.label for picture in pictures if picture.split in (None, "train")}
    for label in labels:
        if label not in trainable:
            yield (
                f"{origin} has no training pictures of class '{label}': all of them are marked as validation or test. "
                "Every class needs some to learn from."
            )
    seen: set[str] = set()
    for picture in pictures:
        if picture.id in seen:
            yield f"{origin} lists {picture.id} twice; keep one, or it could be in both training and test."
        seen.add(picture.id)


def _first_of(faults: Sequence[str]) -> str:
    further = len(faults) - 1
    return f"{faults[0]} ({further:,} more; `python -m training audit` names all.)" if further else faults[0]


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels by value if every one is a decimal integer, else by code point."""
    distinct = sorted({_portable(label) for label in labels})
    if all(_DECIMAL.fullmatch(label) for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def split_named(name: str) -> Split | None:
    """Return the split with this name in a folder or a manifest, None if it is not a split's name."""
    return _SPLIT_NAMES.get(name.casefold())


def _portable(text: str) -> str:
    """Return text in NFC, so that macOS and Linux agree; bytes that are not Unicode become visible escapes."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.encode("utf-8", "backslashreplace").decode("utf-8"))
