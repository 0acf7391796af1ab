"""Read the pictures of a .zip, a .tar or a compressed .tar in place: nothing is unpacked to the disk.

A file of a .zip or a .tar is read from where it lies in the archive, when it is needed. A compressed tar can only be
read from its beginning, so its files are held in memory. An archive comes from anywhere: entries, bytes and compression
are bounded, and one with links, or with paths that lead out of it, is rejected as a whole.
"""

import bz2
import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from app.contract.picture_files import FIRST_BYTES, FOLDER, PICTURE, LeftOut, judge, judge_folder
from app.contract.picture_tree import Folder, PackedFile
from app.errors import UnusableSource
from app.system.memory import available_memory

_MEMORY_SHARE = 0.5
_LONGEST_PATH = 4096
_LARGEST_TAR_HEADER = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_UTF_8_NAME, _ENCRYPTED = 0x800, 0x1
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, EOFError, ValueError,
    NotImplementedError,  # raised by zipfile for a compression that it does not know
    MemoryError,  # lzma's, for a window that the system does not grant
)  # fmt: skip
_UNPACK = "Unpack it, and name the folder."


@dataclass(frozen=True)
class Bounds:
    """Limits of an archive: files, their total bytes, and the ratio of these to its own size if they exceed `free`."""

    entries: int = 1_000_000
    content: int = 1 << 40
    ratio: int = 200
    free: int = 64 << 20


DEFAULT_BOUNDS = Bounds()


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(tuple(_TREES))


def in_archive(path: Path, *, bounds: Bounds = DEFAULT_BOUNDS) -> Folder:
    """Return the tree of an archive. Raises UnusableSource, or OSError if it cannot be read."""
    limits = _Limits(path, bounds)
    tree = next(tree for suffix, tree in _TREES.items() if path.name.lower().endswith(suffix))
    try:
        return tree(path, limits)
    except (OSError, *_DAMAGE) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:  # gzip and bz2 raise it without a number for damage
            raise
        raise UnusableSource(
            f"{path} is damaged, cut off or of another format ({exc}). Copy or pack it again."
        ) from exc


class _Limits:
    """Counts what an archive declares. Every method raises UnusableSource."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self.path, self._bounds = path, bounds
        status = path.stat()
        self.stamp = f"{path}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
        self._entries = self._content = 0
        self._most_by_ratio = max(bounds.free, bounds.ratio * status.st_size)

    def count(self, size: int) -> None:
        """Count one more entry of this many bytes."""
        self._entries += 1
        self._content += size
        if self._entries > self._bounds.entries:
            self.reject(f"holds more than {self._bounds.entries:,} files", _UNPACK)
        self.check(self._content)

    def check(self, content: int) -> None:
        """Compare the total size of the content with its limits."""
        if content > self._bounds.content:
            self.reject(f"holds more than {self._bounds.content:,} bytes", _UNPACK)
        if content > self._most_by_ratio:
            self.reject(
                f"is compressed more than {self._bounds.ratio} times, which pictures never are",
                _UNPACK,
            )

    def reject(self, what: str, remedy: str) -> NoReturn:
        raise UnusableSource(f"{self.path} {what}. {remedy}")

    def reject_entry(self, name: str, what: str) -> NoReturn:
        self.reject(f"holds '{name[:200]}', {what}", "Pack the folder again without it.")


@dataclass
class _Growing:
    """A tree that is built from the entries of an archive, in any order; of two files with one path, the later one
    counts."""

    limits: _Limits
    folders: dict[str, Folder] = field(default_factory=lambda: {"": Folder("")})
    files: dict[str, PackedFile] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    """The paths of folders that are not looked into, with the reason."""

    def add_file(self, name: str, open_file: Callable[[], PackedFile]) -> None:
        """Take a file, unless its folder is not looked into. Raises UnusableSource if it leads out of the archive."""
        parts = self._parts(name)
        if parts and self._enters(parts[:-1]):
            self.files["/".join(parts)] = open_file()

    def add_folder(self, name: str) -> None:
        """Take a folder, unless it is not looked into. Raises UnusableSource if it leads out of the archive."""
        parts = self._parts(name)
        if self._enters(parts):
            self._folder("/".join(parts))

    def _parts(self, name: str) -> list[str]:
        name = name.replace("\\", "/")  # old programs on Windows
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            self.limits.reject_entry(name, "which leads out of it")
        if len(name) > _LONGEST_PATH:
            self.limits.reject_entry(name, "whose path is too long")
        return parts

    def _enters(self, folders: Sequence[str]) -> bool:
        for depth, name in enumerate(folders, 1):
            if (reason := judge_folder(name)) != FOLDER:
                if reason is not None:
                    self.closed["/".join(folders[:depth])] = reason
                return False
        return True

    def grown(self) -> Folder:
        """Return the tree, sorted as a folder on the disk is."""
        for place in sorted(self.files):
            file = self.files[place]
            parent, _, name = place.rpartition("/")
            reason = judge(name, partial(file.read, FIRST_BYTES))
            if reason == PICTURE:
                self._folder(parent).pictures.append((place, file))
            elif reason is not None:
                self._folder(parent).left_out.append(LeftOut(place, reason))
        for place in sorted(self.closed):
            self._folder(place.rpartition("/")[0]).left_out.append(LeftOut(place, self.closed[place]))
        for folder in self.folders.values():
            folder.folders.sort(key=lambda inner: inner.name)
        return self.folders[""]

    def _folder(self, place: str) -> Folder:
        if place not in self.folders:
            parent = self.folders[""]
            for name in place.split("/"):
                path = parent.within(name)
                if path not in self.folders:
                    self.folders[path] = Folder(path)
                    parent.folders.append(self.folders[path])
                parent = self.folders[path]
        return self.folders[place]


def _of_zip(path: Path, limits: _Limits) -> Folder:
    growing = _Growing(limits)
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        limits.count(entry.file_size)
        name = _name_of(entry)
        if stat.S_ISLNK(entry.external_attr >> 16):
            limits.reject_entry(name, "which is a link")
        if entry.is_dir():
            growing.add_folder(name)
            continue
        if entry.flag_bits & _ENCRYPTED:
            limits.reject_entry(name, "which is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            limits.reject_entry(name, "which is compressed by another method than deflate")
        growing.add_file(name, partial(_InZip, path, entry, limits.stamp))
    return growing.grown()


def _name_of(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name: macOS writes UTF-8 without saying so."""
    if entry.flag_bits & _UTF_8_NAME:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


class _InZip(PackedFile):
    """A file of a .zip. Each read opens the archive, so threads can read at once, and nothing has to be closed."""

    def __init__(self, path: Path, entry: zipfile.ZipInfo, stamp: str) -> None:
        self._path, self._start, self._crc = path, entry.header_offset, entry.CRC
        self._packed, self.size = entry.compress_size, entry.file_size
        self._is_stored = entry.compress_type == zipfile.ZIP_STORED
        self.stamp = f"{stamp}:{self._start}"

    def read(self, size: int = -1) -> bytes:
        wanted = self.size if size < 0 else min(size, self.size)
        with self._path.open("rb") as stream:
            stream.seek(max(0, self._start))
            header = stream.read(_LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise self._damaged()
            _, name, extra = _LOCAL_HEADER.unpack(header)
            stream.seek(name + extra, io.SEEK_CUR)
            data = stream.read(wanted) if self._is_stored else self._inflated(stream, wanted)
        if len(data) < wanted or (wanted == self.size and zlib.crc32(data) != self._crc):
            raise self._damaged()
        return data

    def _inflated(self, stream: IO[bytes], wanted: int) -> bytes:
        if wanted == 0:
            return b""  # zlib takes 0 for no limit
        try:
            # Deflate may need a little more than it gives if nothing can be compressed.
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(
                stream.read(min(self._packed, 2 * wanted + 1024)), wanted
            )
        except zlib.error as exc:
            raise self._damaged() from exc

    @staticmethod
    def _damaged() -> OSError:
        return OSError(errno.EIO, "it is damaged within the archive")


def _of_tar(path: Path, limits: _Limits) -> Folder:
    with _Headers(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        return _grown_from(archive, limits, lambda entry: _InTar(path, entry, limits.stamp))


class _Headers(io.FileIO):
    """A tar file of which only the headers are read.

    A header may declare a name as long as the file, so the size of a read is bounded.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_TAR_HEADER:
            raise tarfile.ReadError("a header is too long")
        return super().read(size) or b""


class _InTar(PackedFile):
    def __init__(self, path: Path, entry: tarfile.TarInfo, stamp: str) -> None:
        self._path, self._start, self.size = path, entry.offset_data, entry.size
        self.stamp = f"{stamp}:{self._start}"

    def read(self, size: int = -1) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek(self._start)
            return stream.read(self.size if size < 0 else min(size, self.size))


def _of_packed_tar(unpacked: Callable[[Path], io.BufferedIOBase], path: Path, limits: _Limits) -> Folder:
    with unpacked(path) as stream, tarfile.open(fileobj=_Counted(stream, limits), mode="r|") as archive:

        def content(entry: tarfile.TarInfo) -> PackedFile:
            data = archive.extractfile(entry)
            return _InMemory(b"" if data is None else data.read(), f"{limits.stamp}:{entry.offset_data}")

        return _grown_from(archive, limits, content)


class _Counted(io.RawIOBase):
    """The content of a compressed tar, up to the limit on memory."""

    def __init__(self, stream: io.BufferedIOBase, limits: _Limits) -> None:
        self._stream, self._limits, self._count = stream, limits, 0
        self._most = int(_MEMORY_SHARE * available_memory())

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        self._limits.check(self._count)
        if self._count > self._most:
            self._limits.reject("does not fit into this machine's memory", "Pack the folder as .zip or .tar instead.")
        return data


class _InMemory(PackedFile):
    def __init__(self, data: bytes, stamp: str) -> None:
        self._data, self.stamp, self.size = data, stamp, len(data)

    def read(self, size: int = -1) -> bytes:
        return self._data if size < 0 else self._data[:size]


def _grown_from(archive: tarfile.TarFile, limits: _Limits, file: Callable[[tarfile.TarInfo], PackedFile]) -> Folder:
    growing = _Growing(limits)
    for entry in archive:
        limits.count(entry.size)
        if entry.isdir():
            growing.add_folder(entry.name)
        elif entry.issym() or entry.islnk():
            limits.reject_entry(entry.name, "which is a link")
        elif not entry.isreg() or entry.issparse() or entry.size < 0:
            limits.reject_entry(entry.name, "which is no ordinary file")
        else:
            growing.add_file(entry.name, partial(file, entry))
    return growing.grown()


_TREES: dict[str, Callable[[Path, _Limits], Folder]] = {
    ".zip": _of_zip,
    ".tar": _of_tar,
    **dict.fromkeys((".tar.gz", ".tgz"), partial(_of_packed_tar, gzip.GzipFile)),
    **dict.fromkeys((".tar.bz2", ".tbz2", ".tbz"), partial(_of_packed_tar, bz2.BZ2File)),
    **dict.fromkeys((".tar.xz", ".txz"), partial(_of_packed_tar, lzma.LZMAFile)),
}
