"""Group pictures as the user says: by a pattern over paths, a CSV column, or file numbers.

It opens no picture. A group must not be divided between splits.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from training.data.dataset import Dataset, Picture
from training.data.sources import csv_manifest
from training.errors import OptionError

_RUNS = "runs"
_LONGEST_STEP = 2
_IN_COMMON = 1
_LAST_NUMBER = re.compile(r"(.*?)([0-9]+)[^0-9]*")


def groups_of(dataset: Dataset, data: str, group_by: str | None) -> dict[str, str]:
    """Return the group of every picture that has one, by its id; no groups if `group_by` is None.

    `group_by` is "runs", the name of a column if `data` is a CSV manifest, or a regular expression over ids, whose
    first group, or else the whole match, names the group. Raises OptionError if no picture gets a group.
    """
    if group_by is None:
        return {}
    if group_by == _RUNS:
        found = _runs(dataset.pictures, dataset.labels)
    elif Path(data).suffix.lower() == ".csv" and (values := csv_manifest.column(Path(data), group_by)) is not None:
        known = {picture.id for picture in dataset.pictures}
        found = {picture: value for picture, value in values.items() if picture in known}
    else:
        found = _matches(dataset.pictures, group_by)
    if not found:
        raise OptionError(
            f"--group-by {group_by} matches no picture of {dataset.origin}; its first picture is "
            f"{dataset.pictures[0].id}."
        )
    return found


def together(pictures: Sequence[Picture], alike: Sequence[Sequence[int]], groups: Mapping[str, str]) -> dict[str, str]:
    """Return the units that must not be divided: for each picture's id, the id of the first picture of its unit.

    `alike` lists rows of pictures that are equal or nearly so. These lists and the groups are merged if they have a
    picture in common. Pictures that are alone in their unit are left out.
    """
    parent = list(range(len(pictures)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    members: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        if picture.id in groups:
            members[groups[picture.id]].append(row)
    for rows in (*alike, *members.values()):
        for row in rows[1:]:
            first, second = sorted((root(rows[0]), root(row)))
            parent[second] = first
    roots = [root(row) for row in range(len(pictures))]
    sizes = Counter(roots)
    return {pictures[row].id: pictures[found].id for row, found in enumerate(roots) if sizes[found] > 1}


def _runs(pictures: Sequence[Picture], labels: Sequence[str]) -> dict[str, str]:
    """Return one group for each run of file numbers that rise by at most two while the class rises.

    A camera numbers files like this if one person, or one thing, is photographed class by class. A step of two is a
    discarded picture. Neighbouring runs that have at most one class in common become one group: they are apart because
    of a pause or a change of order.
    """
    order = {label: place for place, label in enumerate(labels)}
    by_prefix: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for picture in pictures:
        if match := _LAST_NUMBER.fullmatch(PurePosixPath(picture.id).stem):
            by_prefix[match[1]].append((int(match[2]), order[picture.label], picture.id))
    groups: dict[str, str] = {}
    for prefix, numbered in by_prefix.items():
        name, seen = "", Counter[int]()
        for run in _rising(sorted(numbered)):
            places = Counter(place for _, place, _ in run)
            if not name or (seen & places).total() > _IN_COMMON:
                name, seen = f"{prefix}{run[0][0]}", Counter()
            seen |= places
            groups |= {picture_id: name for _, _, picture_id in run}
    return groups


def _rising(numbered: Sequence[tuple[int, int, str]]) -> list[list[tuple[int, int, str]]]:
    """Return the pictures (number, place of the class, id) in runs, in their order."""
    runs: list[list[tuple[int, int, str]]] = []
    for row in numbered:
        number, place, _ = row
        if not runs or number - runs[-1][-1][0] > _LONGEST_STEP or place <= runs[-1][-1][1]:
            runs.append([])
        runs[-1].append(row)
    return runs


def _matches(pictures: Sequence[Picture], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as exc:
        raise OptionError(f"--group-by {pattern} is not a regular expression: {exc}.") from exc
    found = {}
    for picture in pictures:
        if match := compiled.search(picture.id):
            group = match[1] if compiled.groups else match[0]
            if group:
                found[picture.id] = group
    return found
