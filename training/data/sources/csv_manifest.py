"""Read a CSV manifest, `path,label[,split]` with a header; further columns are ignored.

Paths are as in `app.contract.csv_manifest`. It checks that the files exist, and does not open them.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from app.contract.csv_manifest import picture_file, picture_id, rows
from app.errors import UnusableSource
from training.data.dataset import SPLIT_NAMES_SHOWN, Listing, Picture, split_named
from training.errors import DataError


def read(manifest: Path) -> Listing:
    """Return the pictures that the manifest lists, in its order. Raises DataError if it is no such manifest."""
    found = Listing()
    try:
        found.pictures += _pictures(manifest, found.faults)
    except UnusableSource as exc:
        raise DataError(str(exc)) from exc
    missing = [
        picture.id for picture in found.pictures if isinstance(picture.content, Path) and not picture.content.is_file()
    ]
    if missing:
        found.faults.append(
            f"{manifest} lists {len(missing)} of {len(found.pictures)} files that are not there, the first "
            f"{missing[0]}. Paths are relative to {manifest.parent}."
        )
    return found


def column(manifest: Path, name: str) -> dict[str, str] | None:
    """Return a further column's values by picture id, None if the manifest has no column of that name.

    Pictures without a value are left out. The manifest has been read before, so that it is known to be sound.
    """
    with manifest.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header = [column.strip().lower() for column in next(reader, [])]
        if name.lower() not in header:
            return None
        rows = [dict(zip(header, (value.strip() for value in row), strict=False)) for row in reader if any(row)]
    values = {picture_id(row["path"]): row.get(name.lower(), "") for row in rows}
    return {picture: value for picture, value in values.items() if value}


def _pictures(manifest: Path, faults: list[str]) -> Iterator[Picture]:
    for line, values in rows(manifest, "path", "label"):
        path, label, split = values.get("path", ""), values.get("label", ""), values.get("split", "")
        where = f"{manifest}, line {line}"
        its_split = split_named(split)
        if not path or not label:
            faults.append(f"{where}: the {'label' if path else 'path'} is empty.")
        elif split and its_split is None:
            faults.append(f"{where}: '{split}' is not a split; known are {SPLIT_NAMES_SHOWN}, or nothing.")
        else:
            yield Picture(picture_id(path), label, its_split, picture_file(manifest, path))
