"""Write a cleaned copy of the data, or a manifest of it, without the bad pictures that an audit found. Originals are
never touched.

It leaves out only what is certain to be wrong: files that cannot be read, copies beyond the first, and training
pictures that leak the test. Only a person judges labels: the copy has the labels that the person decided on, without
dropped pictures and with kept copies.
"""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.audit.report import Audit
from training.data.dataset import SPLITS, Picture
from training.errors import OptionError

_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class Fix:
    """The pictures that were left out, as id and reason, and the number of pictures that were written."""

    left_out: tuple[tuple[str, str], ...]
    kept: int


def left_out(audit: Audit) -> dict[str, str]:
    """Return the ids of pictures to leave out of a cleaned data set, each with the reason.

    Of equal pictures in one class, the one in the latest split stays: the test set keeps its pictures, and training
    loses the copies. Of equal pictures in several classes, none stays, because one of the labels is wrong. Near
    duplicates stay if `fit` keeps them together; if the data's own splits divide them, the training picture is left
    out.
    """
    pictures, settles = audit.dataset.pictures, audit.dataset.decided.settles
    gone = {picture.id: "dropped: a person decided so" for picture in audit.dataset.decided.dropped}
    for picture, look in zip(pictures, audit.looks, strict=True):
        if look.error is not None:
            gone[picture.id] = f"corrupt: {look.error}"
    for group in audit.exact:
        members = sorted((pictures[row] for row in group), key=late_first)
        first = members[0]
        if len({picture.label for picture in members}) == 1:
            copies = (picture.id for picture in members[1:] if not settles("duplicate", (first.id, picture.id)))
            gone |= dict.fromkeys(copies, f"duplicate: the same picture as {first.id}")
        elif not settles("conflict", [picture.id for picture in members]):
            gone |= {picture.id: "conflict: the same picture is in another class" for picture in members}
    for pair in audit.near:
        first, second = sorted((pictures[pair.first], pictures[pair.second]), key=late_first)
        crosses = first.split and second.split and first.split != second.split
        if crosses and first.id not in gone and not settles("near-leakage", (first.id, second.id)):
            gone.setdefault(second.id, f"near-leakage: nearly the same picture as {first.id}")
    held = {audit.groups[picture.id] for picture in pictures if picture.split == "test" and picture.id in audit.groups}
    for picture in pictures:
        if picture.split not in (None, "test") and audit.groups.get(picture.id) in held:
            gone.setdefault(picture.id, f"leakage: its group '{audit.groups[picture.id]}' is in the test")
    return gone


def write_fixed(audit: Audit, out: Path) -> Fix:
    """Write the pictures that `left_out` leaves to `out`: a folder, or a manifest if its name ends in .csv.

    A folder gets copies of files, PNG files of arrays, and left-out.csv, which lists the others. Raises OptionError.
    """
    gone = left_out(audit)
    kept = [picture for picture in audit.dataset.pictures if picture.id not in gone]
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise OptionError(f"--fix {out} already exists. Name a new folder or file, so that nothing is overwritten.")
    try:
        if out.suffix.lower() == ".csv":
            _write_manifest(kept, out)
        else:
            _write_folder(kept, gone, out)
    except OSError as exc:
        raise OptionError(f"--fix {out} cannot be written: {exc.strerror or exc}.") from exc
    return Fix(tuple(gone.items()), len(kept))


def _write_manifest(kept: Sequence[Picture], out: Path) -> None:
    if not all(isinstance(picture.content, Path) for picture in kept):
        raise OptionError(
            f"--fix {out}: a manifest lists files, and this data is an array or an archive; name a folder instead."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for picture in kept:
            writer.writerow((Path(str(picture.content)).resolve().as_posix(), picture.label, picture.split or ""))


def _write_folder(kept: Sequence[Picture], gone: dict[str, str], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for picture in kept:
        target = out.joinpath(*_place(picture))
        if not target.resolve().is_relative_to(out.resolve()):
            raise OptionError(f"{picture.id} would be written outside of {out}; rename it or its class first.")
        target.parent.mkdir(parents=True, exist_ok=True)
        stem, number = target.stem, 1
        while target.exists():
            number += 1
            target = target.with_name(f"{stem}-{number}{target.suffix}")
        if isinstance(picture.content, Path):
            shutil.copy2(picture.content, target)
        else:
            target.write_bytes(picture.encoded())
    with (out / "left-out.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "reason"))
        writer.writerows(gone.items())


def _place(picture: Picture) -> tuple[str, ...]:
    """Return the parts of a path that `training.data.sources.folder` reads back with the picture's label and split."""
    name = PurePosixPath(picture.id).parts
    split = (picture.split,) if picture.split else ()
    # Leave out the folders of the split and the class; the rest keeps names unique.
    rest = [part for part in name if part not in ("..", "/")]
    while len(rest) > 1 and rest[0] in (picture.split, picture.label, *_SPLIT_FOLDERS):
        rest.pop(0)
    last = "-".join(rest)
    return (*split, picture.label, last if "." in last else f"{last}.png")


def late_first(picture: Picture) -> tuple[int, str]:
    """Return a sort key that puts the one of equal pictures that stays first."""
    return (-SPLITS.index(picture.split) if picture.split else 0), picture.id


_SPLIT_FOLDERS = ("train", "validation", "val", "valid", "test", "all")
