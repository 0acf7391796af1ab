"""Cache rows between runs, each under the digest of its source.

A source is a file's bytes for a preprocessed picture, and a picture's pixels for a network's outputs.

A preprocessed picture depends only on its bytes, the preprocessing spec and the decoder, which are the key. So a
changed file or spec is a miss, and a renamed file, another split or another data set with the same pictures is a hit. A
damaged row is computed again. Arrays that do not fit into memory are kept in a mapped file in the same folder. This
module decodes nothing.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec
from app.system.cache_folder import cache_folder
from app.system.memory import available_memory
from training.data.segment import (
    DIGEST_BYTES,
    SUFFIX,
    UNFINISHED,
    Array,
    Draft,
    RowFormat,
    Segment,
    checksum,
    segment_name,
)
from training.errors import OptionError

_LAYOUT = 1
_MOST_BYTES = 32 << 30
_DISK_SHARE = 0.5
_MEMORY_SHARE = 0.25  # TensorFlow makes a copy of what it trains on
_UNFINISHED_FOR_S = 24 * 3600


def digest_of(data: bytes) -> bytes:
    """Return the key of a picture file's content."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class TensorCache:
    """The preprocessed pictures of earlier runs; with `folder` None, nothing is cached.

    With `keeps` False, rows are neither read nor written, and the folder is only used for arrays larger than memory.
    `in_memory_bytes` is the largest array to hold in memory, by default a share of the available memory. `say` is
    called once, with the reason, if nothing can be stored.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        keeps: bool = True,
        in_memory_bytes: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self.keeps = keeps and folder is not None
        self.in_memory_bytes = in_memory_bytes
        self._say = say
        self._has_said = False

    @classmethod
    def of_user(cls, *, keeps: bool, say: Callable[[str], None]) -> Self:
        """Return the cache in the user's cache folder."""
        return cls(cache_folder("tensors"), keeps=keeps, say=say)

    def shelf(self, row: RowFormat, count: int) -> "Shelf":
        """Return a shelf with an array of `count` rows, to be filled from the cache and with new rows."""
        return Shelf(self, row, count)

    def make_room(self, folder: Path, size: int) -> bool:
        """Evict the least recently used segments until `size` more bytes fit, and say whether they do.

        The cache takes at most 32 GiB, and at most half of the space that other files leave on the disk.
        """
        entries = []
        for path in folder.rglob(f"*{SUFFIX}"):
            with suppress(OSError):
                status = path.stat()
                entries.append((status.st_mtime, status.st_size, path))
        finished = sorted(entry for entry in entries if not entry[2].name.startswith(UNFINISHED))
        used = sum(its_size for _, its_size, _ in finished)
        limit = min(_MOST_BYTES, int(_DISK_SHARE * (shutil.disk_usage(folder).free + used)))
        if size > limit:
            return False
        for changed_at, _, path in entries:
            if path.name.startswith(UNFINISHED) and time.time() - changed_at > _UNFINISHED_FOR_S:
                path.unlink(missing_ok=True)  # a run was killed
        for _, its_size, path in finished:
            if used + size <= limit:
                break
            path.unlink(missing_ok=True)
            used -= its_size
        return True

    def say_once(self, line: str) -> None:
        if not self._has_said:
            self._has_said = True
            self._say(line)


NO_CACHE = TensorCache(None)


def picture_rows(spec: PreprocessingSpec) -> RowFormat:
    """Return the row format of pictures that are preprocessed by `spec` with this build of OpenCV."""
    # The spec's version numbers its meaning.
    facts = (str(_LAYOUT), spec.model_dump_json(), cv2.__version__, cv2.getBuildInformation())
    name = hashlib.blake2b("\0".join(facts).encode(), digest_size=DIGEST_BYTES).hexdigest()
    return RowFormat(name, f"pictures of {spec.width}x{spec.height} pixels", spec.shape)


class Shelf:
    """The rows of one format: those kept by earlier runs, and an array of this run's. Safe to fill from threads.

    As a context manager, it removes the file of an unfinished array at the end.
    """

    def __init__(self, cache: TensorCache, row: RowFormat, count: int) -> None:
        self._cache, self._row, self._count = cache, row, count
        self._folder = None if cache.folder is None else cache.folder / row.name
        self._lock = threading.Lock()
        self._array: Array | None = None
        self._draft: Draft | None = None
        self._digests = [b""] * count
        self._checksums = [0] * count
        self._segments: dict[str, Segment] = {}
        self._places: dict[bytes, tuple[Segment, int]] = {}
        self._used: set[Path] = set()
        if self._folder is not None and cache.keeps:
            for path in self._folder.glob(f"[!{UNFINISHED}]*{SUFFIX}"):
                self._add(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._draft is not None:
            self._draft.forget()

    def has(self, digest: bytes) -> bool:
        return digest in self._places

    def take(self, row: int, digest: bytes) -> bool:
        """Fill a row of the array from an earlier run; return False if no run stored it intact."""
        place = self._places.get(digest)
        if place is None:
            return False
        segment, at = place
        self._rows()[row] = segment.rows[at]
        if checksum(digest, self._rows()[row]) != segment.checksums[at]:
            self._drop(segment)
            return False
        self._digests[row], self._checksums[row] = digest, segment.checksums[at]
        self._used.add(segment.path)
        return True

    def put(self, row: int, digest: bytes | None, content: NDArray[Any]) -> None:
        """Fill a row of the array with new content; a row without a digest is not stored."""
        self._rows()[row] = content
        if digest is not None:
            self._digests[row], self._checksums[row] = digest, checksum(digest, self._rows()[row])

    def whole(self, digests: Sequence[bytes]) -> Array | None:
        """Return the mapped rows (N, …) if a segment holds exactly these in this order.

        None if there is none, if it is damaged, or if the array fits in memory, which is faster.
        """
        if self._fits_in_memory():
            return None
        segment = self._segments.get(segment_name(digests))
        if segment is None:
            return None
        if segment.digests != tuple(digests) or not all(segment.is_whole(row) for row in range(len(digests))):
            self._drop(segment)
            return None
        self._used.add(segment.path)
        self._touch()
        return segment.rows

    def keep(self, rows: range) -> None:
        """Store those rows now, so that they are there for the next run if this one is killed.

        An array that lies in a file is stored at the end, as a whole.
        """
        array = self._rows()
        if self._draft is None:
            self._keep(array[rows.start : rows.stop], rows)

    def finish(self, rows: Sequence[int]) -> Array:
        """Return those rows (N, …) of the array, ascending, and store them for later runs."""
        array = self._rows()
        for place, row in enumerate(rows):  # moved within the array: a second one might not fit in memory
            if place != row:
                array[place] = array[row]
        array = array[: len(rows)]
        self._keep(array, rows)
        self._touch()
        return array

    def _keep(self, array: Array, rows: Sequence[int]) -> None:
        """Store the array, or report why that is not possible."""
        if self._cache.keeps and self._cache.folder is not None:
            try:
                self._write(self._cache.folder, array, rows)
            except OSError as exc:
                reason = "the disk is full" if exc.errno == errno.ENOSPC else exc.strerror
                self._cache.say_once(f"no decoded pictures are kept in {self._cache.folder} for later runs: {reason}")

    def _write(self, folder: Path, array: Array, rows: Sequence[int]) -> None:
        """Store the array: the new rows of one in memory, the whole of one in a file. Raises OSError."""
        is_new = [
            bool(self._digests[row]) and (self._draft is not None or not self.has(self._digests[row])) for row in rows
        ]
        places = [place for place, new in enumerate(is_new) if new]
        if not places or (self._draft is not None and len(places) < len(rows)):
            return
        digests = [self._digests[rows[place]] for place in places]
        checksums = [self._checksums[rows[place]] for place in places]
        own = folder / self._row.name
        own.mkdir(parents=True, exist_ok=True)
        size = len(places) * self._row.nbytes
        if not self._cache.make_room(folder, size):
            raise OSError(errno.EDQUOT, f"they take {size / 1e6:,.0f} MB, more than the cache is allowed to")
        if self._draft is not None:
            self._draft.publish(digests, checksums)
            array.flags.writeable = False  # the array is mapped from the stored file
            return
        draft = Draft(own, len(places), self._row)
        try:
            for at, place in enumerate(places):
                draft.rows[at] = array[place]
            self._add(draft.publish(digests, checksums))
        finally:
            draft.forget()

    def _rows(self) -> Array:
        with self._lock:
            if self._array is None:
                self._array = self._allocate()
            return self._array

    def _allocate(self) -> Array:
        what = f"{self._count:,} {self._row.noun}"
        if self._fits_in_memory():
            try:
                return np.empty((self._count, *self._row.shape), self._row.dtype)
            except MemoryError:
                raise OptionError(f"{what} do not fit in this machine's memory; choose a smaller size.") from None
        folder = self._folder or Path(tempfile.gettempdir())
        try:
            self._draft = Draft(folder, self._count, self._row)
        except OSError as exc:
            raise OptionError(
                f"{what} fit neither in this machine's memory nor into {folder} ({exc.strerror}); make room there, or "
                "choose a smaller --size."
            ) from exc
        if not self._cache.keeps:
            self._draft.forget()
        return self._draft.rows

    def _fits_in_memory(self) -> bool:
        most = self._cache.in_memory_bytes
        if most is None:
            most = int(_MEMORY_SHARE * available_memory())
        return self._count * self._row.nbytes <= most

    def _add(self, path: Path) -> None:
        try:
            segment = Segment.open(path, self._row)
        except FileNotFoundError:
            return  # another run has made room
        except (OSError, ValueError):
            with suppress(OSError):
                path.unlink()
            return
        self._segments[path.name] = segment
        for row, digest in enumerate(segment.digests):
            self._places[digest] = (segment, row)

    def _drop(self, segment: Segment) -> None:
        """Forget a damaged segment, so that its rows are computed and kept again."""
        with self._lock:
            self._segments.pop(segment.path.name, None)
            self._places = {digest: place for digest, place in self._places.items() if place[0] is not segment}
        with suppress(OSError):
            segment.path.unlink()

    def _touch(self) -> None:
        """Mark the segments as used; the oldest ones are evicted first."""
        for path in self._used:
            with suppress(OSError):
                os.utime(path)
