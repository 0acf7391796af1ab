"""Assign pictures to folds for cross-validation, the same way on every machine, and hold one fold out.

It is given the groups, and opens no picture.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.system.wording import count_of
from training.data.dataset import Dataset, Listing
from training.data.split import units
from training.errors import OptionError


@dataclass(frozen=True)
class Fold:
    """One of several folds, numbered from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_fold(text: str) -> Fold:
    """Parse "2/5", the second of five folds. Raises OptionError."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) and int(count) >= 2):
        raise OptionError(f"--fold {text} is not one fold of several: give 2/5 for the second of five.")
    return Fold(int(number), int(count))


def deal(dataset: Dataset, *, count: int, seed: int, together: Mapping[str, str]) -> dict[str, int]:
    """Return the fold, from 1 to `count`, of every picture by its id, sorted by id.

    Pictures whose ids have the same value in `together` are one unit. Units come in the order of a hash of `seed` and
    their ids; each goes to the fold that has fewest pictures of its classes, then fewest in all, then the lowest
    number. Raises OptionError if the source gives splits of its own, or if there are fewer units than folds.
    """
    if any(picture.split is not None for picture in dataset.pictures):
        raise OptionError(f"{dataset.origin} has its own splits; folds are only for data without splits.")
    dealt = units(dataset.pictures, together, {}, seed)
    if len(dealt) < count:
        raise OptionError(
            f"{dataset.origin} has {count_of(len(dealt), 'unit')} (pictures or groups), too few for {count} folds."
        )
    by_class: list[Counter[str]] = [Counter() for _ in range(count)]
    folds: dict[str, int] = {}
    for unit in dealt:
        labels = Counter(picture.label for picture in unit)
        place = min(
            range(count),
            key=lambda fold: (sum(by_class[fold][label] for label in labels), by_class[fold].total(), fold),
        )
        by_class[place] += labels
        folds |= {picture.id: place + 1 for picture in unit}
    return dict(sorted(folds.items()))


def hold_out(dataset: Dataset, fold: Fold, *, seed: int, together: Mapping[str, str]) -> Dataset:
    """Return the data with one fold's pictures marked for the test, and no others marked. Raises as `deal` does."""
    folds = deal(dataset, count=fold.count, seed=seed, together=together)
    pictures = [
        replace(picture, split="test" if folds[picture.id] == fold.number else None) for picture in dataset.pictures
    ]
    return Dataset.of(dataset.origin, Listing(pictures, list(dataset.left_out), decided=dataset.decided))


def folds_csv(folds: Mapping[str, int]) -> str:
    """Return `id,fold` rows under a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "fold"])
    writer.writerows(folds.items())
    return text.getvalue()
