"""Read the rows of a CSV manifest of pictures: a header with the column `path`, and others that a caller may need.

Paths are relative to the manifest's folder, or absolute, with ~ for the user's home.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from app.errors import UnusableSource
from app.system.home import expanded


def rows(manifest: Path, *needed: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row that is not empty, with its line's number; columns are in lower case.

    Raises UnusableSource if the file is not such a manifest or lacks a column of `needed`, or OSError.
    """
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:  # Excel writes UTF-8 with a byte order mark
            reader = csv.reader(stream, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            if not set(needed) <= set(header):
                raise UnusableSource(
                    f"{manifest} begins with '{','.join(header)}'; needed is a header with the "
                    f"column{'s' if len(needed) > 1 else ''} {' and '.join(needed)}, separated by commas."
                )
            for row in reader:
                if any(row):
                    yield reader.line_num, dict(zip(header, (value.strip() for value in row), strict=False))
    except UnicodeDecodeError as exc:
        raise UnusableSource(
            f"{manifest} is not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8."
        ) from exc
    except csv.Error as exc:
        raise UnusableSource(f"{manifest} cannot be read as CSV: {exc}.") from exc


def picture_id(path: str) -> str:
    """Return the id of the picture that a manifest lists as `path`; Windows writes backslashes."""
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def picture_file(manifest: Path, path: str) -> Path:
    """Return the file of the picture that the manifest lists as `path`."""
    return manifest.parent / str(expanded(picture_id(path)))
