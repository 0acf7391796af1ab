"""Copy one version from a bucket into a folder of models: all of it, verified by its digests, or nothing."""

import errno
import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.contract.bundle import MANIFEST
from app.contract.store import ModelStore
from app.errors import BundleNotFound, BundleTampered, StoreNotWritable
from app.object_storage.store import BucketStore, Contents
from app.system.atomic_write import make_durable

PULLING = ".pulling-"
"""Prefix of the hidden folder in which a version is assembled."""
_AT_ONCE = 4
"""Files that are downloaded at once: a bundle has some thirty, most of them small."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def version_bytes(contents: Contents, name: str, version: int) -> int:
    """Return how large a version is, by the bucket's listing."""
    return sum(entry.size for entry in contents.files[name][version].values())


def pull(remote: BucketStore, contents: Contents, name: str, version: int, into: ModelStore) -> Path:
    """Download a version, check every file against the manifest, and rename it into its place.

    A marker that holds it back comes along. One of the same number that is there already is replaced.

    Raises a BundleError if what the bucket holds is damaged, an ObjectStoreError, or StoreNotWritable.
    """
    home = into.root / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PULLING, dir=home, ignore_cleanup_errors=True) as building:
            folder = Path(building) / str(version)
            folder.mkdir()
            manifest, text = remote.manifest(contents, name, version)
            if remote.address.digest not in (None, hashlib.sha256(text).hexdigest()):
                raise BundleNotFound(f"Version {version} of {name} is not the one that {remote.address} names.")
            files = list(manifest.files)
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                found = threads.map(lambda file: _download(remote, f"{name}/{version}/{file}", folder / file), files)
                for file, digest in zip(files, found, strict=True):
                    if digest != manifest.files[file]:
                        raise BundleTampered(_damaged(remote, name, version, file, digest))
            (folder / MANIFEST).write_bytes(text)
            make_durable(folder)
            # Read when the manifest is there already, as it was written before it.
            held_back = None if remote.address.digest else remote.why_held_back(name, version)
            if version in into.versions(name):
                into.remove(name, version)
            into.publish(folder, name, version, held_back=held_back)
    except OSError as exc:
        full = exc.errno in _FULL
        what = "The disk is full" if full else f"It cannot be written ({exc.strerror or os.strerror(exc.errno or 0)})"
        raise StoreNotWritable(
            f"{what}: version {version} of {name} was not copied to {into.root}. "
            f"{'Make room' if full else 'Name a folder that can be written'}."
        ) from exc
    return into.path(name, version)


def _download(remote: BucketStore, path: str, file: Path) -> str | None:
    """Return the sha256 of the downloaded object; None if the object does not exist."""
    try:
        return remote.bucket.download(path, file)
    except FileNotFoundError:
        return None


def _damaged(remote: BucketStore, name: str, version: int, file: str, digest: str | None) -> str:
    what = (
        f"{file} is missing" if digest is None else f"{file} is not the file that was exported (sha256 {digest[:12]}…)"
    )
    return f"{remote.address.url}/{name}/{version}: {what}. Push the version under another number."
