"""Find duplicate pictures, and whether they cross classes or the data's own splits.

It is given the pictures that are alike (by digest, or by `training.audit.near`), and compares no pixels itself.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from training.audit.findings import Finding
from training.audit.image_stats import Look
from training.audit.pairs import NearPair
from training.data.dataset import Picture


def exact_groups(looks: Sequence[Look]) -> list[list[int]]:
    """Return the rows of equal decoded pictures: a list for each picture that occurs more than once."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, look in enumerate(looks):
        if look.error is None:
            rows[look.pixels].append(row)
    return [group for group in rows.values() if len(group) > 1]


def find_exact(pictures: Sequence[Picture], groups: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Make findings of equal pictures: leakage or conflict if they cross splits or classes, else duplicates."""
    for group in groups:
        members = [pictures[row] for row in group]
        ids = tuple(picture.id for picture in members)
        crossed = False
        if across := _crossing([picture.split for picture in members if picture.split is not None]):
            crossed = True
            yield Finding("leakage", ids, float(len(ids)), f"The same picture {len(ids)} times, in {across}.")
        if across := _crossing([f"class '{picture.label}'" for picture in members]):
            crossed = True
            yield Finding("conflict", ids, float(len(ids)), f"The same picture {len(ids)} times, in {across}.")
        if not crossed:
            yield Finding("duplicate", ids, float(len(ids)), f"The same picture {len(ids)} times.")


def find_near(pictures: Sequence[Picture], pairs: Sequence[NearPair]) -> Iterator[Finding]:
    """Make one finding per pair of near duplicates: across classes, across given splits, or neither."""
    for pair in pairs:
        first, second = pictures[pair.first], pictures[pair.second]
        ids = (first.id, second.id)
        what = f"{pair.describe()} (correlation {pair.correlation:.3f})"
        crossed = False
        if first.split and second.split and first.split != second.split:
            crossed = True
            yield Finding("near-leakage", ids, pair.correlation, f"In {first.split} and {second.split}: {what}.")
        if first.label != second.label:
            crossed = True
            sentence = f"Classes '{first.label}' and '{second.label}', but near duplicates: {what}."
            yield Finding("conflict", ids, pair.correlation, sentence)
        if not crossed:
            yield Finding("near-duplicate", ids, pair.correlation, f"{what[:1].upper()}{what[1:]}.")


def find_straddling(pictures: Sequence[Picture], groups: Mapping[str, str]) -> Iterator[Finding]:
    """Find groups (by picture id) whose pictures are in two of the given splits."""
    members: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if picture.split is not None and picture.id in groups:
            members[groups[picture.id]].append(picture)
    for group, found in members.items():
        if across := _crossing([str(picture.split) for picture in found]):
            ids = tuple(picture.id for picture in found)
            yield Finding("leakage", ids, float(len(ids)), f"Group '{group}' has its pictures in {across}.")


def _crossing(places: Sequence[str]) -> str | None:
    distinct = sorted(set(places))
    return " and ".join(distinct) if len(distinct) > 1 else None
