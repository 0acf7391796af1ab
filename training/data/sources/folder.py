"""List a folder with one sub-folder per class, or such folders under train/, validation/ and test/.

It goes by names alone: no file is opened, and whether one really is a picture is found out when it is decoded.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from training.data.dataset import Picture, Split, split_named
from training.errors import DataError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_LEFT_BY_TOOLS = {"__macosx", "@eadir", "thumbs.db"}


def read(root: Path) -> list[Picture]:
    """Return the pictures below `root`, sorted by id. Raises DataError."""
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root} has no class folders: put the pictures of each class into a folder named after it.")
    splits = {folder.name: split_named(folder.name) for folder in folders}
    marked = {split for split in splits.values() if split is not None}
    if "train" not in marked or len(marked) == 1 < len(folders):
        if len(folders) == 1 and len(inner := _folders(folders[0])) > 1:
            raise DataError(
                f"{root} holds one folder, which holds {len(inner)}: name {folders[0]} if those are the classes."
            )
        pictures = list(_classes(root, root, None))
    elif None not in splits.values():
        pictures = [picture for folder in folders for picture in _split(root, folder, splits[folder.name])]
    else:
        other = next(name for name, split in splits.items() if split is None)
        raise DataError(
            f"{root} holds {' and '.join(sorted(marked))} folders beside '{other}': move '{other}' elsewhere if these "
            "are splits, or rename the folders if they are classes."
        )
    return sorted(pictures, key=lambda picture: picture.id)


def _split(root: Path, folder: Path, split: Split | None) -> Iterator[Picture]:
    if not _folders(folder):
        raise DataError(
            f"{folder} has no class folders: a split holds one folder per class, as in {folder.name}/cats. "
            "Move pictures without a label elsewhere."
        )
    return _classes(root, folder, split)


def _classes(root: Path, parent: Path, split: Split | None) -> Iterator[Picture]:
    for folder in _folders(parent):
        files = list(_files(folder))
        pictures = [file for file in files if file.suffix.lower() in _SUFFIXES]
        if not pictures:
            found = f"none of its {len(files)} files ends in {' '.join(_SUFFIXES)}" if files else "it holds no files"
            raise DataError(
                f"Class '{folder.relative_to(root).as_posix()}' of {root} has no pictures ({found}). "
                "Add pictures, or remove the folder."
            )
        for file in pictures:
            yield Picture(file.relative_to(root).as_posix(), folder.name, split, file)


def _folders(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.iterdir() if entry.is_dir() and not _is_ignored(entry.name))


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not _is_ignored(name)]
        yield from (Path(place, name) for name in names if not _is_ignored(name))


def _fail(error: OSError) -> None:
    raise error  # os.walk would leave the folder out in silence


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BY_TOOLS
