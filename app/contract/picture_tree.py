"""Folders and files of a source as a tree, whether they lie on the disk or in an archive."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.contract import picture_files
from app.contract.picture_files import LeftOut


class PackedFile(ABC):
    """A file within an archive, read in place. `stamp` changes when its content does; `size` is in bytes."""

    stamp: str
    size: int

    @abstractmethod
    def read(self, size: int = -1) -> bytes:
        """Return the first `size` bytes, or all of them. Raises OSError."""


StoredFile = Path | PackedFile


@dataclass
class Folder:
    """A folder. Its `path`, and those of its pictures and left-out files, are within the source; "" is the source.

    `faults` are sentences about parts that cannot be read.
    """

    path: str
    folders: list["Folder"] = field(default_factory=list)
    pictures: list[tuple[str, StoredFile]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def within(self, name: str) -> str:
        """Return the path of the entry with this name in the folder."""
        return f"{self.path}/{name}" if self.path else name

    def all(self) -> Iterator["Folder"]:
        """Yield the folder and every one below it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting += folder.folders


def on_disk(root: Path) -> Folder:
    """Return the tree of a folder. Raises OSError if the folder itself cannot be read."""
    tree = Folder("")
    waiting = [(tree, picture_files.Folder.at(str(root)))]
    while waiting:
        folder, place = waiting.pop()
        try:
            level = place.look()
        except OSError as exc:
            if folder is tree:
                raise
            folder.faults.append(f"{place.path} cannot be read: {exc.strerror}.")
            continue
        folder.pictures = [(folder.within(os.path.basename(path)), Path(path)) for path in level.pictures]  # noqa: PTH119
        folder.left_out = [LeftOut(folder.within(os.path.basename(path)), why) for path, why in level.left_out]  # noqa: PTH119
        folder.folders = [Folder(folder.within(os.path.basename(inner.path))) for inner in level.folders]  # noqa: PTH119
        waiting += zip(folder.folders, level.folders, strict=True)
    return tree
