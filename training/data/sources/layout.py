"""Find the classes of a tree: a folder for each, or such folders under train/, validation/ and test/.

It looks only at the names of folders, and does not know what contains them.
"""

from collections.abc import Iterator
from dataclasses import replace

from app.contract.picture_files import LeftOut, describe_left_out
from app.contract.picture_tree import Folder
from training.data.dataset import Listing, Picture, Split, split_named
from training.errors import DataError

_OUTSIDE = "a picture outside of the class folders"


def labelled(root: Folder, shown: str, *, enters: bool = False) -> Listing:
    """Return the pictures of a tree, sorted by id, and what is wrong with its layout; `shown` is its name in messages.

    If `root` holds only a folder with the class folders, that folder is read with `enters`; without, a DataError names
    it. Raises DataError if there are no classes.
    """
    if (inner := _wrapped(root)) is not None:
        if enters:
            return _entered(root, inner, shown)
        raise DataError(
            f"{shown} holds one folder, which holds {len(inner.folders)}: name {shown}/{inner.path} if those are the "
            "classes."
        )
    folders = root.folders
    if not folders:
        raise DataError(
            f"{shown} has no class folders: put the pictures of each class into a folder named after the class."
        )
    found = Listing(left_out=list(_outside(root)), faults=list(root.faults))
    splits = {folder.name: split_named(folder.name) for folder in folders}
    marked = {split for split in splits.values() if split is not None}
    if "train" not in marked or len(marked) == 1 < len(folders):
        for folder in folders:
            _add_class(found, folder, None, shown)
    else:
        for folder in folders:
            _add_split(found, folder, splits[folder.name], shown, sorted(marked))
    found.pictures.sort(key=lambda picture: picture.id)
    return found


def _entered(root: Folder, inner: Folder, shown: str) -> Listing:
    """Return what `inner` holds. The ids of its pictures are relative to `inner`."""
    found = labelled(inner, shown)
    way = len(inner.path) + 1
    found.pictures = [replace(picture, id=picture.id[way:]) for picture in found.pictures]
    folder = root
    while folder is not inner:
        found.left_out += _outside(folder)
        (folder,) = folder.folders
    return found


def _wrapped(root: Folder) -> Folder | None:
    """Return the inner folder that holds several folders, if `root` holds only the path to it; else None."""
    folder = root
    while len(folder.folders) == 1 and split_named(folder.folders[0].name) != "train":
        (folder,) = folder.folders
    return folder if folder is not root and folder.folders else None


def _add_split(found: Listing, folder: Folder, split: Split | None, shown: str, marked: list[str]) -> None:
    if split is None:
        found.faults.append(
            f"{shown} holds {' and '.join(marked)} folders beside '{folder.name}': move '{folder.name}' elsewhere if "
            "these are splits, or rename the folders if they are classes."
        )
        for each in folder.all():
            found.left_out += _outside(each)
        return
    if not folder.folders:
        found.faults.append(
            f"{shown}/{folder.path} has no class folders: a split holds one folder per class, as in "
            f"{folder.name}/cats. Move pictures without a label elsewhere."
        )
    found.left_out += _outside(folder)
    found.faults += folder.faults
    for inner in folder.folders:
        _add_class(found, inner, split, shown)


def _add_class(found: Listing, folder: Folder, split: Split | None, shown: str) -> None:
    pictures: list[Picture] = []
    left_out: list[LeftOut] = []
    for each in folder.all():
        pictures += (Picture(path, folder.name, split, file) for path, file in each.pictures)
        left_out += each.left_out
        found.faults += each.faults
    if not pictures:
        found.faults.append(
            f"Class '{folder.path}' of {shown} has no pictures ({describe_left_out(left_out) or 'it holds no files'}). "
            "Add pictures, or remove the folder."
        )
    found.pictures += pictures
    found.left_out += left_out


def _outside(folder: Folder) -> Iterator[LeftOut]:
    yield from folder.left_out
    yield from (LeftOut(path, _OUTSIDE) for path, _ in folder.pictures)
