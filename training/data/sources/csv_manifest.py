"""Read a CSV manifest, `path,label[,split]` with a header; further columns are for other people and are left alone.

Paths are relative to the manifest's folder, or absolute. Files are checked to be there, not opened.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

from training.data.dataset import SPLIT_NAMES_SHOWN, Picture, Split, split_named
from training.errors import DataError


def read(manifest: Path) -> list[Picture]:
    """Return the pictures that the manifest lists, in its order. Raises DataError."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:  # Excel writes UTF-8 with a byte order mark
            pictures = list(_rows(manifest, stream))
    except UnicodeDecodeError as exc:
        raise DataError(f"{manifest} is not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8.") from exc
    except csv.Error as exc:
        raise DataError(f"{manifest} cannot be read as CSV: {exc}.") from exc
    missing = [
        picture.id for picture in pictures if isinstance(picture.content, Path) and not picture.content.is_file()
    ]
    if missing:
        raise DataError(
            f"{manifest} lists {len(missing)} of {len(pictures)} files that are not there, the first {missing[0]}. "
            f"Paths are relative to {manifest.parent}."
        )
    return pictures


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


def _rows(manifest: Path, stream: TextIO) -> Iterator[Picture]:
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
        if not path or not label:
            raise DataError(f"{where}: the {'label' if path else 'path'} is empty.")
        name = picture_id(path)
        yield Picture(name, label, _split(split, where), manifest.parent / name)


def _split(name: str, where: str) -> Split | None:
    split = split_named(name)
    if name and split is None:
        raise DataError(f"{where}: '{name}' is not a split; known are {SPLIT_NAMES_SHOWN}, or nothing.")
    return split
