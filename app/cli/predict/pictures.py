"""Find and read the pictures that a command names. A file that is named directly is not filtered: its decoder judges
it."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.contract.archives import in_archive, is_archive
from app.contract.csv_manifest import picture_file, rows
from app.contract.picture_files import SUFFIXES, Folder, LeftOut
from app.contract.picture_tree import PackedFile
from app.errors import UnusableSource

STANDARD_INPUT = "-"
_MANIFEST_SUFFIX = ".csv"
_CHUNK_BYTES = 1 << 20


class Picture(NamedTuple):
    """The bytes of a file, its name, and its stamp, which changes when its content does."""

    name: str
    data: bytes
    stamp: str = ""


class Unreadable(NamedTuple):
    """The reason why a name leads to no picture, as a sentence, and its stable code for programs."""

    name: str
    reason: str
    code: str = "unreadable"
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Packed:
    """A picture within an archive; `path` is the archive's with the path within it."""

    path: str
    file: PackedFile


Found = str | Packed
"""A picture that can be read: the path of a file, or a place in an archive."""


def find(arguments: Iterable[str | Unreadable], left_out: list[LeftOut]) -> Iterator[Found | Unreadable]:
    """Yield the pictures that each argument stands for.

    An argument is a file, a pattern, a folder, an archive or a CSV manifest. Folders and archives yield every file that
    `app.contract.picture_files` recognises as a picture, in the order of names; other files are added to `left_out`.
    `-` stands for itself.
    """
    for argument in arguments:
        if argument == STANDARD_INPUT or isinstance(argument, Unreadable):
            yield argument
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            fitting = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - a Path would rewrite what was given
            if not fitting:
                yield Unreadable(argument, "No file matches this pattern.")
            for path in fitting:
                yield from _within(path, left_out)
        else:
            yield from _within(argument, left_out)


def lines_of(file: str) -> Iterator[str | Unreadable]:
    """Yield the names that a file holds, one a line; `-` is the standard input."""
    try:
        with _standard_input() if file == STANDARD_INPUT else Path(file).open("rb") as lines:
            for line in lines:
                if name := os.fsdecode(line.rstrip(b"\r\n")):
                    yield name
    except OSError as exc:
        yield Unreadable(file, f"{exc.strerror}.")


def read(found: Found, *, max_bytes: int | None = None) -> Picture | Unreadable:
    """Read a picture of at most `max_bytes`."""
    name, stamp = name_of(found), ""
    try:
        if isinstance(found, Packed):
            stamp, data = found.file.stamp, found.file.read(-1 if max_bytes is None else max_bytes + 1)
        elif found == STANDARD_INPUT:
            with _standard_input() as stream:
                data = stream.read()
        else:
            descriptor = os.open(found, os.O_RDONLY | os.O_CLOEXEC)  # half the time that a file object takes
            try:
                status = os.fstat(descriptor)
                stamp = _stamp(status)
                if max_bytes is not None and status.st_size > max_bytes:
                    return _too_large(name, max_bytes, stamp)
                data = _content(descriptor, status.st_size, max_bytes)
            finally:
                os.close(descriptor)
    except OSError as exc:
        return Unreadable(name, f"{exc.strerror}.", stamp=stamp)
    if max_bytes is not None and len(data) > max_bytes:
        return _too_large(name, max_bytes, stamp)
    return Picture(name, data, stamp)


def stamp_of(found: Found) -> str:
    """Return the stamp that reading the picture would give, without reading it."""
    if isinstance(found, Packed):
        return found.file.stamp
    try:
        return _stamp(os.stat(found))  # noqa: PTH116 - a Path takes as long again
    except OSError:
        return ""


def path_of(found: Found) -> str:
    """Return the path that identifies the picture."""
    return found.path if isinstance(found, Packed) else found


def name_of(found: Found) -> str:
    """Return the path as text: a path need not be text."""
    return os.fsencode(path_of(found)).decode("utf-8", "replace")


def _too_large(name: str, max_bytes: int, stamp: str) -> Unreadable:
    reason = f"The file has more than {max_bytes:,} bytes, which is the most that is accepted. Save it smaller."
    return Unreadable(name, reason, "upload_too_large", stamp)


def _content(descriptor: int, size: int, max_bytes: int | None) -> bytes:
    """Return the content of a file with a size of `size` bytes; stop reading once it exceeds `max_bytes`."""
    data = os.read(descriptor, size + 1)
    while len(data) != size and (max_bytes is None or len(data) <= max_bytes):  # it grows or shrinks, or is a pipe
        more = os.read(descriptor, _CHUNK_BYTES)
        if not more:
            break
        data += more
    return data


def _stamp(status: os.stat_result) -> str:
    # The inode's change time reveals a copy that has set the modification time back to the original's.
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _standard_input() -> BinaryIO:
    """Open the standard input once more: Python closes its own at the end, and waits for a thread that reads it."""
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _within(path: str, left_out: list[LeftOut]) -> Iterator[Found | Unreadable]:
    place = Path(path)
    pictures: Iterator[Found | Unreadable]
    if place.is_dir():
        pictures = _below(path, left_out)
    elif place.is_file() and is_archive(place):
        pictures = _packed(place, left_out)
    elif place.is_file() and place.suffix.lower() == _MANIFEST_SUFFIX:
        pictures = _listed(place)
    else:
        yield path
        return
    empty = True
    for found in pictures:
        empty = False
        yield found
    if empty:
        what = "folder" if place.is_dir() else "archive" if is_archive(place) else "manifest"
        yield Unreadable(
            path, f"This {what} has no pictures: no file that ends in {' '.join(SUFFIXES)} or has a picture's content."
        )


def _below(path: str, left_out: list[LeftOut]) -> Iterator[str | Unreadable]:
    waiting = [Folder.at(path)]
    while waiting:
        folder = waiting.pop()
        try:
            level = folder.look()
        except OSError as exc:
            yield Unreadable(folder.path, f"{exc.strerror}.")
            continue
        left_out += level.left_out
        yield from level.pictures
        waiting += reversed(level.folders)


def _packed(archive: Path, left_out: list[LeftOut]) -> Iterator[Packed | Unreadable]:
    try:
        root = in_archive(archive)
    except (UnusableSource, OSError) as exc:
        yield Unreadable(str(archive), str(exc) if isinstance(exc, UnusableSource) else f"{exc.strerror}.")
        return
    pictures = []
    for folder in root.all():
        left_out += folder.left_out
        pictures += folder.pictures
    for place, file in sorted(pictures, key=itemgetter(0)):
        if isinstance(file, PackedFile):
            yield Packed(f"{archive}/{place}", file)


def _listed(manifest: Path) -> Iterator[str | Unreadable]:
    try:
        for _, row in rows(manifest, "path"):
            if row.get("path"):
                yield str(picture_file(manifest, row["path"]))
    except (UnusableSource, OSError) as exc:
        yield Unreadable(str(manifest), str(exc) if isinstance(exc, UnusableSource) else f"{exc.strerror}.")
