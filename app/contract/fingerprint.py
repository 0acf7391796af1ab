"""Detect whether a version's files have changed since the last scan, cheaply enough to ask twice a second.

It does not read the content of files; the manifest's digests check that.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from app.contract.bundle import MANIFEST


@dataclass(frozen=True)
class Fingerprint:
    """Path, size, and times of last change, in nanoseconds, of every file in a folder."""

    files: frozenset[tuple[str, int, int, int]]

    @property
    def has_manifest(self) -> bool:
        return any(path == MANIFEST for path, *_ in self.files)


def fingerprint_of(folder: Path) -> Fingerprint | None:
    """Return the folder's fingerprint, without files if it is not a folder; None if it does not exist.

    Raises OSError if it may not be read.
    """
    found: set[tuple[str, int, int, int]] = set()
    try:
        _collect(folder, "", found)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return Fingerprint(frozenset())
    return Fingerprint(frozenset(found))


def _collect(folder: Path, prefix: str, found: set[tuple[str, int, int, int]]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                _collect(folder / entry.name, f"{path}/", found)
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:  # a link to nowhere, or gone since
                found.add((path, -1, -1, -1))
            else:
                # The inode's change time reveals a copy that has set the modification time back to the original's.
                found.add((path, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
