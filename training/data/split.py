"""Divide a data set into training, validation and test pictures, the same way on every machine.

If the source has its own split, that is kept. This module looks at no picture: the caller says which of them belong
together, such as near duplicates or pictures of one person.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.system.wording import count_of
from training.data.dataset import SPLITS, Dataset, Picture, Split
from training.errors import DataError, OptionError

SPLIT_FILE = "split.csv.gz"
"""Its name in a bundle."""

MAX_FRACTION = 0.9
_COLUMNS = ["id", "label", "split"]


@dataclass(frozen=True)
class Assignment:
    """Every picture with its split, sorted by id. A fraction is None if the source gave that split."""

    labels: tuple[str, ...]
    rows: tuple[tuple[Picture, Split], ...]
    seed: int
    validation: float | None
    test: float | None

    def pictures(self, split: Split) -> list[Picture]:
        return [picture for picture, its_split in self.rows if its_split == split]

    def counts(self) -> dict[Split, dict[str, int]]:
        """Return the number of pictures of every class in every split, zeros included."""
        counts = {split: dict.fromkeys(self.labels, 0) for split in SPLITS}
        for picture, split in self.rows:
            counts[split][picture.label] += 1
        return counts

    def to_csv(self) -> str:
        """Return `id,label,split` rows that `read_splits` reads back."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((picture.id, picture.label, split) for picture, split in self.rows)
        return text.getvalue()

    def summary(self) -> dict[str, Any]:
        """Return the manifest's record of the split, in JSON's types."""
        given = "given by the source"
        return {
            "seed": self.seed,
            "validation": given if self.validation is None else self.validation,
            "test": given if self.test is None else self.test,
            "counts": self.counts(),
            "sha256": hashlib.sha256(self.to_csv().encode()).hexdigest(),
        }


def assign_splits(
    dataset: Dataset, *, seed: int, validation: float, test: float, together: Mapping[str, str] | None = None
) -> Assignment:
    """Hold out a fraction of every class for validation and for test, unless the source has that split itself.

    Pictures whose ids have the same value in `together` come into the same split, which moves the fractions a little.
    Every class keeps a training picture, and has one in each split that is held out if it has enough pictures to
    spare one for each. Raises OptionError.
    """
    fractions = fractions_to_hold_out(dataset, validation=validation, test=test)
    available: dict[str, list[Picture]] = defaultdict(list)
    rows: list[tuple[Picture, Split]] = []
    for picture in dataset.pictures:
        if picture.split in (None, "train"):
            available[picture.label].append(picture)
        else:
            rows.append((picture, picture.split))
    given = {together[picture.id]: split for picture, split in rows if together and picture.id in together}
    wanted = {label: _held_out(len(pictures), fractions) for label, pictures in available.items()}
    left = {label: len(pictures) for label, pictures in available.items()}
    divisible = [picture for pictures in available.values() for picture in pictures]
    for unit in units(divisible, together or {}, given, seed):
        need = Counter(picture.label for picture in unit)
        its_split: Split = "train"
        if all(left[label] > count for label, count in need.items()):
            if unit[0].split is None and (key := (together or {}).get(unit[0].id)) in given:
                its_split = given[key]
            else:
                its_split = next((split for split in fractions if _fits(need, wanted, split)), "train")
        if its_split != "train":
            for label, count in need.items():
                left[label] -= count
                wanted[label][its_split] = wanted[label].get(its_split, 0) - count
        rows += [(picture, its_split) for picture in unit]
    rows.sort(key=lambda row: row[0].id)
    return Assignment(dataset.labels, tuple(rows), seed, fractions.get("validation"), fractions.get("test"))


def fractions_to_hold_out(dataset: Dataset, *, validation: float, test: float) -> dict[Split, float]:
    """Return the fractions of the splits that the source does not give itself. Raises OptionError."""
    marked = {picture.split for picture in dataset.pictures}
    fractions: dict[Split, float] = {}
    asked: dict[Split, float] = {"test": test, "validation": validation}
    for split, fraction in asked.items():
        if not 0 <= fraction <= MAX_FRACTION:
            raise OptionError(f"--{split} {fraction} is not a fraction from 0 to {MAX_FRACTION}.")
        if split not in marked:
            fractions[split] = fraction
    if sum(fractions.values()) > MAX_FRACTION:
        raise OptionError(f"--validation {validation} and --test {test} leave too little to train on.")
    return fractions


def read_splits(text: str) -> dict[str, Split]:
    """Return the split of every picture by its id, from the text of `Assignment.to_csv`. Raises DataError."""
    header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    if header != _COLUMNS:
        raise DataError(f"The recorded split begins with '{','.join(header)}', not with '{','.join(_COLUMNS)}'.")
    splits: dict[str, Split] = {}
    for number, row in enumerate(rows, start=1):
        split = next((split for split in SPLITS if row[2:] == [split]), None)
        if split is None:
            raise DataError(f"The recorded split is damaged: row {number} is '{','.join(row)}'.")
        splits[row[0]] = split
    return splits


def write_split_file(folder: Path, text: str) -> None:
    """Write the text of `Assignment.to_csv` into a bundle, compressed; the same split gives the same bytes."""
    (folder / SPLIT_FILE).write_bytes(gzip.compress(text.encode(), mtime=0))


def read_split_file(folder: Path) -> str | None:
    """Return the text that `write_split_file` wrote, or None if there is no such file. Raises DataError."""
    try:
        return gzip.decompress((folder / SPLIT_FILE).read_bytes()).decode()
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, zlib.error) as exc:
        raise DataError(f"{folder / SPLIT_FILE} cannot be read: {exc}.") from exc


def recorded_pictures(dataset: Dataset, text: str, split: Split) -> list[Picture]:
    """Return the pictures that a recorded split holds in `split`, sorted by id.

    Those that a person has dropped since are left out. Raises DataError if another picture is missing.
    """
    by_id = {picture.id: picture for picture in dataset.pictures}
    wanted = sorted(name for name, its_split in read_splits(text).items() if its_split == split)
    dropped = {picture.id for picture in dataset.decided.dropped}
    wanted = [name for name in wanted if name not in dropped]
    missing = [name for name in wanted if name not in by_id]
    if missing:
        raise DataError(
            f"{dataset.origin} lacks {len(missing)} of the {count_of(len(wanted), f'{split} picture')} on record, the "
            f"first {missing[0]}. Name the data that the model was trained on."
        )
    return [by_id[name] for name in wanted]


def units(
    pictures: Sequence[Picture], together: Mapping[str, str], given: Mapping[str, Split], seed: int
) -> list[list[Picture]]:
    """Return the pictures in lists that must not be divided, in the order in which they are held out.

    `given` has, by unit, the held-out split in which the source has some of its pictures.
    """
    units: dict[str, list[Picture]] = defaultdict(list)
    alone = []
    for picture in pictures:
        # Pictures that the source marks as training do not follow the others into a split that the source gives.
        if (key := together.get(picture.id)) is not None:
            units[f"{picture.split}/{key}" if picture.split and key in given else key].append(picture)
        else:
            alone.append([picture])
    order = {picture.id: _rank(picture, seed) for picture in pictures}

    def place(unit: list[Picture]) -> tuple[bool, bytes]:
        # Pictures that the source marks as training come last: they are held out only if no unmarked ones are left.
        return any(picture.split is not None for picture in unit), min(order[picture.id] for picture in unit)

    return sorted([*alone, *units.values()], key=place)


def _fits(need: Mapping[str, int], wanted: Mapping[str, Mapping[Split, int]], split: Split) -> bool:
    """Say whether a split still needs most of these pictures: some of each class, and at least half in total."""
    useful = sum(max(0, min(count, wanted[label].get(split, 0))) for label, count in need.items())
    return 2 * useful > sum(need.values()) or useful == sum(need.values())


def _held_out(available: int, fractions: dict[Split, float]) -> dict[Split, int]:
    """Return how many of a class's pictures each split takes, at least one each; none if the class is too small."""
    counts = {split: max(1, int(available * fraction + 0.5)) for split, fraction in fractions.items() if fraction > 0}
    if available <= len(counts):
        return {}
    while sum(counts.values()) >= available:
        counts[max(counts, key=lambda split: counts[split])] -= 1
    return counts


def _rank(picture: Picture, seed: int) -> bytes:
    """Return a picture's place in the shuffle.

    A hash needs no random generator, whose stream could change between versions. It does not depend on the order of
    files, and keeps the other pictures in place when one is added.
    """
    return hashlib.blake2b(f"{seed}/{picture.id}".encode(), digest_size=16).digest()
