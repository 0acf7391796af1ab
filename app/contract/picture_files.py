"""Find the pictures in a folder, and give a reason for every other file.

The bytes decide, not the name. A file with a picture's suffix is listed without being opened; if it is not a picture,
its decoder reports it by name later. Any other file is opened, and is listed if its first bytes are those of a picture.
Links to folders are followed. Hidden files and folders are counted and not read; files that systems and version control
leave behind are neither read nor counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from app.contract.header import ImageFormat, read_header
from app.contract.other_formats import name_of_other
from app.errors import ImageError, UnsupportedFormat
from app.system.wording import count_of

SUFFIXES: dict[str, ImageFormat] = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".png": "png", ".webp": "webp", ".bmp": "bmp",
    ".tif": "tiff", ".tiff": "tiff", ".gif": "gif", ".avif": "avif", ".heic": "heic", ".heif": "heic",
}  # fmt: skip
"""How pictures are usually named. What is named otherwise is opened."""

FIRST_BYTES = 4096
_HEADER_WITH_A_ZERO = 32

PICTURE = "a picture"
FOLDER = "a folder"
_HIDDEN_PICTURE = "a hidden picture"
_HIDDEN_FILE = "a hidden file"
_HIDDEN_FOLDER = "a hidden folder"
_EMPTY = "an empty file"
_UNKNOWN = "a file of no known format"
_RAW = "a camera's raw file"
_UNREADABLE = "a file that cannot be read"
_NO_FILE = "a pipe, socket or device"
_LEADS_NOWHERE = "a link that leads nowhere"
_LEADS_BACK = "a link to a folder above it"

_PLURALS = {
    "link that leads nowhere": "links that lead nowhere",
    "link to a folder above it": "links to a folder above them",
    "file of no known format": "files of no known format",
    "file that cannot be read": "files that cannot be read",
    "picture outside of the class folders": "pictures outside of the class folders",
    "pipe, socket or device": "pipes, sockets or devices",
}
OWN_FOLDER = ".imageclass"
"""The folder, beside the pictures, in which training keeps data about them."""

# Systems and version control write these into any folder by themselves, so nobody who collects pictures misses them.
_LITTER = {
    "__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "icon\r",
    ".ds_store", ".localized", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".directory", ".nomedia",
    ".git", ".gitignore", ".gitattributes", ".gitkeep", ".hg", ".svn", OWN_FOLDER,
}  # fmt: skip
_APPLE_DOUBLE = "._"
# Their bytes are those of TIFF, and what a TIFF decoder finds first is a thumbnail.
_RAW_SUFFIXES = {
    ".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw", ".pef",
    ".sr2", ".srf", ".srw",
}  # fmt: skip


class LeftOut(NamedTuple):
    """A file, or a link, that is not read. `reason` is in words that follow "This is "."""

    name: str
    reason: str


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """Return "3 files left out: 2 videos, 1 link that leads nowhere"; empty if nothing was left out."""
    counts = counted(left_out)
    total = sum(counts.values())
    listed = ", ".join(f"{count:,} {plural(reason, count)}" for reason, count in counts.items())
    return f"{count_of(total, 'file')} left out: {listed}" if total else ""


def counted(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Return how many files were left out for each reason, the commonest first."""
    counts = Counter(reason for _, reason in left_out)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def plural(reason: str, count: int) -> str:
    """Return a reason in the words that follow a count."""
    for article in ("a ", "an "):
        if reason.startswith(article):
            noun = reason.removeprefix(article)
            return noun if count == 1 else _PLURALS.get(noun, f"{noun}s")
    return reason


def judge_folder(name: str) -> str | None:
    """Return FOLDER, or why a folder of this name is not read; None if it is skipped without being counted."""
    if _is_litter(name):
        return None
    return _HIDDEN_FOLDER if name.startswith(".") else FOLDER


def judge(name: str, first_bytes: Callable[[], bytes]) -> str | None:
    """Return PICTURE, or why a file of this name is left out; None if it is skipped without being counted.

    `first_bytes` returns up to FIRST_BYTES of the file and is called only if they decide; it may raise OSError.
    """
    if _is_litter(name):
        return None
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - ten times as fast as a Path
    hidden = name.startswith(".")
    if suffix in SUFFIXES and not hidden:
        return PICTURE
    try:
        begin = first_bytes()
    except OSError:
        return _UNREADABLE
    if _begins_a_picture(begin):
        if suffix in _RAW_SUFFIXES:
            return _RAW
        return _HIDDEN_PICTURE if hidden else PICTURE
    if hidden:
        return _HIDDEN_FILE
    if not begin:
        return _EMPTY
    other = name_of_other(begin)
    return other.partition(",")[0] if other else suffix or _UNKNOWN


def _is_litter(name: str) -> bool:
    return name.lower() in _LITTER or name.startswith(_APPLE_DOUBLE)


def _begins_a_picture(begin: bytes) -> bool:
    if b"\0" not in begin[:_HEADER_WITH_A_ZERO]:
        return False  # a text may begin with BM; the header of every format has a zero byte
    try:
        read_header(begin)
    except UnsupportedFormat:
        return False
    except ImageError:
        return True  # it begins like one; its size may be further behind, or it is broken
    return True


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder to look into, and the folders that lead to it, so that a link back to one of them is noticed."""

    path: str
    _way: frozenset[tuple[int, int]] = field(repr=False)

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the folder at `path`. Raises OSError."""
        real = Path(path).resolve()
        return cls(path, frozenset(_identity(each) for each in (real, *real.parents)))

    def look(self) -> "Level":
        """Return the folder's own entries, without those of folders in it, by name. Raises OSError."""
        level = Level([], [], [])
        with os.scandir(self.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                self._sort(entry, level)
        return level

    def _sort(self, entry: os.DirEntry[str], level: "Level") -> None:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        reason: str | None
        if is_file:
            reason = judge(entry.name, lambda: _first_bytes(entry.path))
        elif not is_folder:
            reason = None if _is_litter(entry.name) else _LEADS_NOWHERE if entry.is_symlink() else _NO_FILE
        elif (reason := judge_folder(entry.name)) != FOLDER:
            pass
        elif (identity := _identity(entry)) in self._way:
            reason = _LEADS_BACK
        else:
            level.folders.append(Folder(entry.path, self._way | {identity}))
            return
        if reason == PICTURE:
            level.pictures.append(entry.path)
        elif reason is not None:
            level.left_out.append(LeftOut(entry.path, reason))


class Level(NamedTuple):
    """The content of one folder: further folders, the paths of pictures, and the files that are left out."""

    folders: list[Folder]
    pictures: list[str]
    left_out: list[LeftOut]


def _identity(entry: os.DirEntry[str] | Path) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino


def _first_bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
        return file.read(FIRST_BYTES)
