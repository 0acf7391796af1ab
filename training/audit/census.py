"""Count what the files are, and find those that cannot be used. It does not look at the content of pictures."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from app.contract.picture_files import SUFFIXES, plural
from training.audit.findings import Finding
from training.audit.image_stats import Look
from training.data.dataset import Dataset, Picture

_MOST_SIZES = 10


def census(dataset: Dataset, looks: Sequence[Look]) -> dict[str, Any]:
    """Return counts of classes, splits, formats, modes and sizes, in JSON's types."""
    usable = [look for look in looks if look.error is None]
    sizes = Counter(f"{look.width}x{look.height}" for look in usable)
    return {
        "pictures": len(looks),
        "usable": len(usable),
        "classes": dict(sorted(Counter(picture.label for picture in dataset.pictures).items())),
        "splits": dict(Counter(picture.split or "not given" for picture in dataset.pictures)),
        "formats": dict(Counter(look.format for look in usable).most_common()),
        "modes": dict(Counter(look.mode for look in usable).most_common()),
        "sizes": dict(sizes.most_common(_MOST_SIZES)),
        "further_sizes": max(0, len(sizes) - _MOST_SIZES),
        "with_alpha": sum(look.alpha for look in usable),
        "turned_by_exif": sum(look.orientation != 1 for look in usable),
    }


def find_odd_files(pictures: Sequence[Picture], looks: Sequence[Look]) -> Iterator[Finding]:
    """Find files that are corrupt, too large for the service, named for another format or rotated by EXIF; and mixed
    modes."""
    for picture, look in zip(pictures, looks, strict=True):
        if look.error is not None:
            yield Finding("corrupt", (picture.id,), 1.0, look.error)
            continue
        if look.too_large is not None:
            yield Finding("too-large", (picture.id,), float(look.width * look.height), look.too_large)
        named = SUFFIXES.get(PurePosixPath(picture.id).suffix.lower())
        if named is not None and look.format not in (named, "array"):
            yield Finding("misnamed", (picture.id,), 1.0, f"Named {named.upper()}, but it is {look.format.upper()}.")
        if look.orientation != 1:
            yield Finding("orientation", (picture.id,), 1.0, f"EXIF orientation {look.orientation} turns it.")
    yield from _mixed_modes(pictures, looks)


def find_layout(dataset: Dataset) -> Iterator[Finding]:
    """Find faults of the layout that prevent training, and files that are not part of the data."""
    for fault in dataset.faults:
        yield Finding("layout", (), 1.0, fault)
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in dataset.left_out:
        names[reason].append(name)
    for reason, found in names.items():
        yield Finding("left-out", tuple(found), float(len(found)), f"{len(found):,} {plural(reason, len(found))}.")


def _mixed_modes(pictures: Sequence[Picture], looks: Sequence[Look]) -> Iterator[Finding]:
    modes = Counter(look.mode for look in looks if look.error is None)
    if len(modes) < 2:
        return
    usual = modes.most_common(1)[0][0]
    for mode, count in modes.most_common()[1:]:
        found = [
            picture for picture, look in zip(pictures, looks, strict=True) if look.error is None and look.mode == mode
        ]
        classes = Counter(picture.label for picture in found)
        label, most = classes.most_common(1)[0]
        where = f"; {most:,} of them in class '{label}'" if count > 1 else f" in class '{label}'"
        yield Finding(
            "mixed-modes",
            tuple(picture.id for picture in found[:_MOST_SIZES]),
            float(count),
            f"{count:,} {'picture is' if count == 1 else 'pictures are'} {mode}, while most are {usual}{where}.",
        )
