"""Open labelled pictures from any source: folders, archives, .npz, MNIST's IDX files, a CSV manifest, or a name.

It chooses the reader and knows no format itself. Files of pictures are listed, not read. A person's decisions about
them are applied here, for all commands alike.
"""

from collections.abc import Callable
from pathlib import Path

from app.contract.archives import is_archive
from app.contract.other_formats import name_of_other
from app.contract.picture_files import FIRST_BYTES, describe_left_out
from training.data.dataset import Dataset, Listing, Picture
from training.data.decisions import corrected, decisions_file, describe_decided, read_decisions
from training.data.sources import archive, csv_manifest, folder, idx, named, npz
from training.errors import DataError

__all__ = ["open_data"]


def open_data(data: str, *, say: Callable[[str], None] | None = None, tolerant: bool = False) -> Dataset:
    """Return the data set at the path `data`, or the well-known one of that name if no such path exists.

    A person's decisions are applied: labels are corrected, and dropped pictures are left out. `say` is called with a
    line on these, and one on files that are not pictures. Raises DataError; if `tolerant`, only if no picture is found.
    """
    path = Path(data)
    try:
        if not data or not path.exists():
            origin = data
            found: Listing | list[Picture] = named.read(data)
        else:
            origin = path.name if path.name not in ("", "..") else path.resolve().name
            found = _read(path)
            if decisions := read_decisions(decisions_file(path)):
                found = corrected(found if isinstance(found, Listing) else Listing(found), decisions)
    except OSError as exc:
        raise DataError(f"{exc.filename or data} cannot be read: {exc.strerror or exc}.") from exc
    dataset = Dataset.of(origin, found, tolerant=tolerant)
    if say is not None:
        for line in filter(None, (describe_left_out(dataset.left_out), describe_decided(dataset.decided))):
            say(line)
    return dataset


def _read(path: Path) -> Listing | list[Picture]:
    if idx.is_idx(path):
        return idx.read(path)
    if path.is_dir():
        return folder.read(path)
    if is_archive(path):
        return archive.read(path)
    match path.suffix.lower():
        case ".npz":
            return npz.read(path)
        case ".csv":
            return csv_manifest.read(path)
    with path.open("rb") as stream:
        other = name_of_other(stream.read(FIRST_BYTES))
    raise DataError(
        f"{path} is {f'{other}, and no' if other else 'not'} data that can be read: name a folder with one sub-folder "
        "per class, a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz of it, an .npz file, MNIST's IDX files, or a .csv "
        "manifest (unpack an archive first if it is of another kind)."
    )
