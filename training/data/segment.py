"""One file of rows (preprocessed pictures, or a network's outputs for them), then a digest and a checksum of each row.

The rows come first, so that they can be mapped into memory before the rest is known. The number of rows follows from
the file's size. A segment is written under a hidden name, renamed, and never changed after that, so that readers see a
complete segment or none. This module knows nothing of files of pictures, nor of other segments.
"""

import errno
import hashlib
import os
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
SUFFIX = ".rows"
UNFINISHED = "."
"""The first character of the name of an unfinished segment."""

_CHECKSUM = np.dtype("<u4")
_BLOCK_BYTES = 1 << 22

Array = NDArray[np.uint8] | NDArray[np.float16]


@dataclass(frozen=True)
class RowFormat:
    """The shape and type of each row, and the plural noun for rows in messages.

    `name` is the folder of their segments; rows of another meaning have another name.
    """

    name: str
    noun: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float16"] = "uint8"

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def checksum(digest: bytes, row: Array) -> int:
    """Return the CRC-32 of a row and its digest, so that damage to either is detected."""
    return zlib.crc32(np.ascontiguousarray(row).view(np.uint8).data, zlib.crc32(digest))


@dataclass(frozen=True)
class Segment:
    """A finished segment, its `rows` (N, …) mapped from the file."""

    path: Path
    rows: Array
    digests: tuple[bytes, ...]
    checksums: tuple[int, ...]

    @classmethod
    def open(cls, path: Path, row: RowFormat) -> Self:
        """Open the segment at `path`. Raises ValueError if it is not one, or OSError."""
        count, rest = divmod(path.stat().st_size, row.nbytes + DIGEST_BYTES + _CHECKSUM.itemsize)
        if rest or not count:
            raise ValueError(f"{path} is no segment.")
        with path.open("rb") as stream:
            stream.seek(count * row.nbytes)
            digests = stream.read(count * DIGEST_BYTES)
            checksums = np.frombuffer(stream.read(count * _CHECKSUM.itemsize), _CHECKSUM)
            rows: Array = np.memmap(stream, row.dtype, "r", shape=(count, *row.shape))
        if len(digests) != count * DIGEST_BYTES or len(checksums) != count:
            raise ValueError(f"{path} changed while it was read.")
        starts = range(0, len(digests), DIGEST_BYTES)
        return cls(path, rows, tuple(digests[at : at + DIGEST_BYTES] for at in starts), tuple(checksums.tolist()))

    def is_whole(self, row: int) -> bool:
        """Say whether a row is intact."""
        return checksum(self.digests[row], self.rows[row]) == self.checksums[row]


class Draft:
    """A segment that is being filled: `rows` (count, …) lie in a file of their own beside the finished ones.

    The space is allocated at once, because writing to mapped memory on a full disk kills the process. Raises OSError if
    the disk is too full.
    """

    def __init__(self, folder: Path, count: int, row: RowFormat) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=SUFFIX, dir=folder)
        self._path: Path | None = Path(name)
        self._row_bytes = row.nbytes
        try:
            with os.fdopen(descriptor, "r+b") as stream:
                _take_room(descriptor, count * (self._row_bytes + DIGEST_BYTES + _CHECKSUM.itemsize))
                self.rows: Array = np.memmap(stream, row.dtype, "r+", shape=(count, *row.shape))
        except BaseException:
            self.forget()
            raise

    def publish(self, digests: Sequence[bytes], checksums: Sequence[int]) -> Path:
        """Finish the file with its first rows, one for each digest, and return where it lies. Raises OSError."""
        if self._path is None:
            raise ValueError("The draft is finished already.")
        end = len(digests) * self._row_bytes
        table = b"".join(digests) + np.array(checksums, _CHECKSUM).tobytes()
        with self._path.open("r+b") as stream:
            stream.seek(end)
            stream.write(table)
            stream.truncate(end + len(table))
        final = self._path.with_name(segment_name(digests))
        self._path.replace(final)
        self._path = None
        return final

    def forget(self) -> None:
        """Remove the file if it was not published. Arrays that are mapped from it stay readable."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            self._path = None


def segment_name(digests: Sequence[bytes]) -> str:
    """Return the file name of the segment with these rows in this order: two runs that make it write the same file."""
    return hashlib.blake2b(b"".join(digests), digest_size=DIGEST_BYTES).hexdigest() + SUFFIX


def _take_room(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this file system cannot allocate space ahead
                raise
        else:
            return
    for start in range(0, size, _BLOCK_BYTES):
        os.pwrite(descriptor, bytes(min(_BLOCK_BYTES, size - start)), start)
