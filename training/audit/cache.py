"""Cache the results of an audit between runs, so that a second one takes seconds. It decides nothing about pictures.

The `Look` of a file is keyed by its path, size and time of change; near duplicates and probabilities are keyed by the
digest of the decoded pixels. A cache that is damaged, of another version or not writable is ignored.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from app.contract.picture_tree import PackedFile
from app.contract.preprocessing import Image
from app.system.atomic_write import atomic_write
from app.system.cache_folder import cache_folder
from training.audit.image_stats import Look, Scale
from training.audit.pairs import NearPair
from training.audit.registration import Floats
from training.data.dataset import Picture

_VERSION = 4
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
_MOST_RELABELLED = 0.05


@dataclass(frozen=True)
class KnownPairs:
    """Near duplicates among the pictures `compared`, all by digest: (first, second, the pair)."""

    compared: frozenset[str]
    pairs: tuple[tuple[str, str, NearPair], ...]


class Cache:
    """The results of earlier audits of one data set. With `folder` None, nothing is stored or found."""

    def __init__(self, folder: Path | None, data: str) -> None:
        name = hashlib.blake2b(str(Path(data).absolute()).encode(errors="surrogateescape"), digest_size=12).hexdigest()
        self._folder = None if folder is None else folder / name

    @classmethod
    def of_user(cls, data: str, *, keeps: bool = True) -> Self:
        """Return the cache of `data` in the user's cache folder. With `keeps` False it stores and finds nothing."""
        return cls(cache_folder("audit") if keeps else None, data)

    def looks(self, pictures: Sequence[Picture], scale: Scale) -> dict[int, Look]:
        """Return, by row, the stored looks at files that have not changed since."""
        stored, thumbnails = self._read_json("looks.json"), self._read_array("looks.npy")
        if stored is None or thumbnails is None or stored.get("scale") != asdict(scale):
            return {}
        found: dict[int, Look] = {}
        with suppress(*_DAMAGE):
            known: Mapping[str, Any] = stored["files"]
            for row, picture in enumerate(pictures):
                entry = known.get(picture.id)
                if entry is not None and entry["stamp"] == _stamp(picture):
                    place = entry["thumbnail"]
                    found[row] = Look(**entry["look"], thumbnail=None if place is None else thumbnails[place])
        return found

    def keep_looks(self, pictures: Sequence[Picture], looks: Sequence[Look], scale: Scale) -> None:
        thumbnails: list[Image] = []
        files: dict[str, Any] = {}
        names = [field.name for field in fields(Look) if field.name != "thumbnail"]
        for picture, look in zip(pictures, looks, strict=True):
            if (stamp := _stamp(picture)) is None:
                continue
            place = None
            if look.thumbnail is not None:
                place = len(thumbnails)
                thumbnails.append(look.thumbnail)
            files[picture.id] = {
                "stamp": stamp,
                "thumbnail": place,
                "look": {name: getattr(look, name) for name in names},
            }
        if files:
            side = scale.thumbnail
            stack = np.stack(thumbnails) if thumbnails else np.empty((0, side, side), np.uint8)
            self._write_array("looks.npy", stack)
            self._write_json("looks.json", {"scale": asdict(scale), "files": files})

    def near(self, side: int, threshold: float) -> KnownPairs:
        """Return the known near duplicates for this thumbnail size and threshold."""
        stored = self._read_json("near.json")
        with suppress(*_DAMAGE):
            if stored is not None and (stored["side"], stored["threshold"]) == (side, threshold):
                pairs = tuple((first, second, NearPair(**pair)) for first, second, pair in stored["pairs"])
                return KnownPairs(frozenset(stored["compared"]), pairs)
        return KnownPairs(frozenset(), ())

    def keep_near(self, side: int, threshold: float, known: KnownPairs) -> None:
        pairs = [(first, second, asdict(replace(pair, first=0, second=0))) for first, second, pair in known.pairs]
        content = {"side": side, "threshold": threshold, "compared": sorted(known.compared), "pairs": pairs}
        self._write_json("near.json", content)

    def probabilities(
        self, model: str, digests: Sequence[str], targets: NDArray[np.int64], labels: Sequence[str]
    ) -> Floats | None:
        """Return out-of-fold probabilities (N, K) from an earlier run of `model` on these pictures and classes, or
        None.

        The out-of-fold prediction for a picture does not depend on its own label, and hardly on the few pictures that
        were removed or relabelled since.
        """
        stored, array = self._read_json("labels.json"), self._read_array("labels.npy")
        if stored is None or array is None:
            return None
        with suppress(*_DAMAGE):
            if (stored["model"], stored["labels"]) != (model, list(labels)):
                return None
            row_of = {digest: row for row, digest in enumerate(stored["digests"])}
            rows = np.array([row_of[digest] for digest in digests])
            renamed = np.array(stored["targets"])[rows] != targets
            removed = len(row_of) - len(set(digests))
            if renamed.sum() + removed <= _MOST_RELABELLED * len(row_of):
                return np.asarray(array[rows], np.float32)
        return None

    def keep_probabilities(
        self,
        model: str,
        digests: Sequence[str],
        targets: NDArray[np.int64],
        labels: Sequence[str],
        probabilities: Floats,
    ) -> None:
        self._write_array("labels.npy", probabilities)
        content = {"model": model, "labels": list(labels), "digests": list(digests), "targets": targets.tolist()}
        self._write_json("labels.json", content)

    def _read_json(self, name: str) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        with suppress(*_DAMAGE):
            stored = json.loads((self._folder / name).read_bytes())
            if isinstance(stored, dict) and stored.get("version") == _VERSION:
                return stored
        return None

    def _read_array(self, name: str) -> NDArray[Any] | None:
        if self._folder is None:
            return None
        with suppress(*_DAMAGE):
            array: NDArray[Any] = np.load(self._folder / name, allow_pickle=False)
            return array
        return None

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        self._write(name, lambda stream: stream.write(json.dumps({"version": _VERSION, **content}).encode()))

    def _write_array(self, name: str, array: NDArray[Any]) -> None:
        self._write(name, lambda stream: np.save(stream, array))

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / name) as stream:
                write(stream)


def _stamp(picture: Picture) -> str | None:
    """Return the path, size, time and inode of a file; None for arrays, which are examined faster than read from a
    cache."""
    if isinstance(picture.content, np.ndarray):
        return None
    if isinstance(picture.content, PackedFile):
        return picture.content.stamp
    with suppress(OSError):
        status = picture.content.stat()
        return f"{picture.content}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    return None
