"""Read a CSV manifest, `path,label[,split]` with a header; further columns are for other people and are left alone.

Paths are relative to the manifest's folder, or absolute, with ~ for the user's home. Files are checked to be there, not
opened.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

from app.system.home import expanded
from training.data.dataset import SPLIT_NAMES_SHOWN, Listing, Picture, split_named
from training.errors import DataError


def read(manifest: Path) -> Listing:
    """Return the pictures that the manifest lists, in its order. Raises DataError if it is no such manifest."""
    found = Listing()
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:  # Excel writes UTF-8 with a byte order mark
            found.pictures += _rows(manifest, stream, found.faults)
    except UnicodeDecodeError as exc:
        raise DataError(f"{manifest} is not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8.") from exc
    except csv.Error as exc:
        raise DataError(f"{manifest} cannot be read as CSV: {exc}.") from exc
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


def picture_id(path: str) -> str:
    """Return the id of the picture that a manifest lists as `path`; Windows writes backslashes."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def _rows(manifest: Path, stream: TextIO, faults: list[str]) -> Iterator[Picture]:
    reader = csv.reader(stream, strict=True)
    header = [name.strip().lower() for name in next(reader, [])]
    if "path" not in header or "label" not in header:
        raise DataError(
            f"{manifest} begins with '{','.join(header)}'; needed is a header with the columns path and label, and "
            "split if there is one, separated by commas."
        )
    for row in reader:
        if not any(row):
            continue
        values = dict(zip(header, (value.strip() for value in row), strict=False))
        path, label, split = values.get("path", ""), values.get("label", ""), values.get("split", "")
        where = f"{manifest}, line {reader.line_num}"
        its_split = split_named(split)
        if not path or not label:
            faults.append(f"{where}: the {'label' if path else 'path'} is empty.")
        elif split and its_split is None:
            faults.append(f"{where}: '{split}' is not a split; known are {SPLIT_NAMES_SHOWN}, or nothing.")
        else:
            name = picture_id(path)
            yield Picture(name, label, its_split, manifest.parent / expanded(name))
