"""The model store: `<root>/<name>/<integer version>/`, each a bundle. It lists paths and opens no bundle.

`<root>/<name>/pinned`, if it exists, names the one version of the model that is to be served. If
`<root>/<name>/<version>.held` exists, that version is held back: it is served only if it is pinned. If
`<root>/<name>/unloaded` exists, the model is not to be served. `<root>/<name>/preview`, if it exists, names a version
that is served beside the live one, to requests that name it.
"""

import contextlib
import errno
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.errors import BundleNotFound, StoreConflict
from app.system.atomic_write import atomic_write
from app.system.folder_lock import taking_turns
from app.system.invocation import command_line

PINNED = "pinned"
PREVIEW = "preview"
WRITTEN_BY = {PINNED: "pin", PREVIEW: "preview"}
"""The command of `models` that writes a mark."""
_UNLOADED = "unloaded"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
HELD = ".held"
"""The end of a marker's name. It sorts before the slash in a version's paths, so a copy in that order has it first."""
NAME_RULE = "1 to 64 letters, digits, dots, dashes and underscores, beginning and ending with a letter or digit"


def is_model_name(name: str) -> bool:
    """Say whether `name` can be a model's name: it is a folder and a part of URLs on every system."""
    return _NAME.fullmatch(name) is not None


def is_version(text: str) -> bool:
    """Say whether `text` is a valid name of a version's folder, which is its number."""
    return _VERSION.fullmatch(text) is not None


def version_in_mark(content: bytes, *, path: str, command: str) -> int:
    """Return the version that the mark at `path` names. Raises BundleNotFound, with the command that writes one, if it
    names none."""
    text = content.decode("utf-8", "replace").strip()
    if not is_version(text):
        raise BundleNotFound(f"{path} names no version. Name one: {command}")
    return int(text)


def versions_held_back(entries: Iterable[str]) -> set[int]:
    """Return the versions that have a marker among the names of a model's folder."""
    marked = {entry.removesuffix(HELD) for entry in entries if entry.endswith(HELD)}
    return {int(version) for version in marked if is_version(version)}


def serving_order(versions: Iterable[int], *, held_back: set[int], pinned: int | None) -> list[int]:
    """Return versions in the order in which they are to be served: the first that passes its check is live.

    That is the `pinned` one, which may be missing, then those that are not held back, newest first.
    """
    order = [each for each in sorted(versions, reverse=True) if each not in held_back and each != pinned]
    return order if pinned is None else [pinned, *order]


@dataclass(frozen=True)
class ModelStore:
    """A folder of models. Folders whose names cannot be those of a model or a version are ignored."""

    root: Path

    def names(self) -> list[str]:
        """Return the names of the models that have a version, sorted. Raises BundleNotFound if there is no store."""
        try:
            folders = [entry for entry in self.root.iterdir() if entry.is_dir()]
        except OSError as exc:
            reason = "does not exist" if isinstance(exc, FileNotFoundError) else f"cannot be read ({exc.strerror})"
            raise BundleNotFound(f"The model store {self.root} {reason}. Set IMAGECLASS_MODEL_STORE.") from exc
        return sorted(folder.name for folder in folders if is_model_name(folder.name) and self.versions(folder.name))

    def changed_at(self, names: Iterable[str]) -> list[int]:
        """Return when entries were last added to the store and to the folders of these models, or removed from them.

        In nanoseconds; -1 for a folder that cannot be read. A file that is overwritten in place changes none of them.
        """
        return [_changed_at(self.root), *(_changed_at(self.root / name) for name in names)]

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model in ascending order; none for a model that is not there.

        Raises BundleNotFound if its folder cannot be read.
        """
        return sorted(int(entry) for entry in self._entries(name) if is_version(entry))

    def held_back(self, name: str) -> set[int]:
        """Return the versions that have a marker. Raises BundleNotFound if the model's folder cannot be read."""
        return versions_held_back(self._entries(name))

    def serving_order(self, name: str, pinned: int | None) -> list[int]:
        """Return the model's versions in `serving_order`. Raises BundleNotFound if its folder cannot be read."""
        versions = self.versions(name)
        # The markers are read second: that of every version that was seen is there.
        return serving_order(versions, held_back=self.held_back(name), pinned=pinned)

    def all_held_back(self, name: str) -> BundleNotFound:
        """Return the error of a model that has versions, but none to serve."""
        promote = self.command("promote", name, "VERSION")
        return BundleNotFound(f"Every version of {name} in {self.root} is held back. Promote one: {promote}")

    def path(self, name: str, version: int) -> Path:
        return self.root / name / str(version)

    def newest(self, name: str) -> Path:
        """Return the path of a model's highest version, held back or not. Raises BundleNotFound."""
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise BundleNotFound(f"There is no model '{name}' in {self.root}; it holds: {known}.")
        return self.path(name, versions[-1])

    def pinned(self, name: str) -> int | None:
        """Return the pinned version, None if there is no pin. Raises BundleNotFound if the pin names no version."""
        return self._version_in(name, PINNED)

    def pin(self, name: str, version: int) -> None:
        """Pin this version, so that it is served even if there are newer ones. Raises BundleNotFound, or OSError."""
        self._write_version(name, PINNED, version)
        self._end_preview_of(name, version)

    def unpin(self, name: str) -> None:
        """Remove the pin, so that the newest version that is not held back is served again. Raises OSError."""
        (self.root / name / PINNED).unlink(missing_ok=True)

    def preview(self, name: str) -> int | None:
        """Return the version in preview, None if there is none. Raises BundleNotFound if the mark names no version."""
        return self._version_in(name, PREVIEW)

    def begin_preview(self, name: str, version: int) -> None:
        """Serve this version beside the live one, to requests that name it. Raises BundleNotFound, or OSError."""
        self._write_version(name, PREVIEW, version)

    def end_preview(self, name: str) -> None:
        """Serve the live version alone. Raises OSError."""
        (self.root / name / PREVIEW).unlink(missing_ok=True)

    def publish(self, folder: Path, name: str, version: int, *, held_back: str | None) -> None:
        """Rename a finished bundle into its place; a reason in `held_back` marks the version before it is visible.

        Raises FileExistsError if the version exists, or another OSError.
        """
        final, marker = self.path(name, version), self._marker(name, version)
        with self._changing(name):
            if final.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
            self._remove_stray_markers(name)
            if held_back is not None:
                with atomic_write(marker, durable=True, mode=0o644) as stream:
                    stream.write(f"{held_back}\n".encode())
                _sync(final.parent)
            try:
                folder.rename(final)
            except OSError:  # not Ctrl-C: it may come when the version is visible already
                marker.unlink(missing_ok=True)
                raise

    def promote(self, name: str, version: int) -> None:
        """Stop holding a version back. Raises BundleNotFound, StoreConflict if it is not held back, or OSError."""
        self.check_has(name, version)
        with self._changing(name):
            try:
                self._marker(name, version).unlink()
            except FileNotFoundError as exc:
                raise StoreConflict(f"Version {version} of {name} is not held back.") from exc
        self._end_preview_of(name, version)

    def remove(self, name: str, version: int) -> None:
        """Hide a version from readers by a rename, then delete it and its marker.

        `app.contract.live` decides whether it may be removed. Raises BundleNotFound or OSError.
        """
        self.check_has(name, version)
        path = self.path(name, version)
        with tempfile.TemporaryDirectory(prefix=".removing-", dir=path.parent) as hidden, self._changing(name):
            path.rename(Path(hidden) / path.name)
            self._marker(name, version).unlink(missing_ok=True)
            self._end_preview_of(name, version)

    def check_has(self, name: str, version: int | None = None) -> None:
        """Raise BundleNotFound, which lists those that exist, if the model or the version does not exist."""
        self.newest(name)
        versions = self.versions(name)
        if version is not None and version not in versions:
            known = ", ".join(map(str, versions))
            raise BundleNotFound(f"{self.root / name} has no version {version}; it has: {known}.")

    def why_held_back(self, name: str, version: int) -> str | None:
        """Return the reason in a version's marker; None if it is not held back. Raises OSError."""
        try:
            return self._marker(name, version).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None

    def is_unloaded(self, name: str) -> bool:
        """Say whether the model is marked as unloaded, which means that it is not to be served."""
        return (self.root / name / _UNLOADED).exists()

    def mark(self, name: str, *, unloaded: bool) -> None:
        """Mark the model as unloaded, or remove that mark. Raises OSError."""
        file = self.root / name / _UNLOADED
        if unloaded:
            file.touch()
        else:
            file.unlink(missing_ok=True)

    def command(self, *words: str) -> str:
        """Return `python -m app models` with these words, for this store and ready to paste."""
        return command_line("app", "models", *words, "--model-store", str(self.root))

    def _marker(self, name: str, version: int) -> Path:
        return self.root / name / f"{version}{HELD}"

    def _version_in(self, name: str, mark: str) -> int | None:
        file = self.root / name / mark
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise BundleNotFound(f"{file} cannot be read: {exc.strerror}.") from exc
        return version_in_mark(content, path=str(file), command=self.command(WRITTEN_BY[mark], name, "VERSION"))

    def _write_version(self, name: str, mark: str, version: int) -> None:
        self.check_has(name, version)
        with atomic_write(self.root / name / mark, mode=0o644) as stream:
            stream.write(f"{version}\n".encode())

    def _end_preview_of(self, name: str, version: int) -> None:
        with contextlib.suppress(BundleNotFound):
            if self.preview(name) == version:
                self.end_preview(name)

    def _entries(self, name: str) -> list[str]:
        if not is_model_name(name):
            return []
        folder = self.root / name
        try:
            return [entry.name for entry in folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise BundleNotFound(f"{folder} cannot be read ({exc.strerror}). Set IMAGECLASS_MODEL_STORE.") from exc

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """Let one process at a time change versions and markers, so that none removes another's new files."""
        with taking_turns(self.root / name, threading.Event()):
            yield

    def _remove_stray_markers(self, name: str) -> None:
        """Remove the markers of versions that were never published, or were removed by hand."""
        for version in self.held_back(name) - set(self.versions(name)):
            self._marker(name, version).unlink(missing_ok=True)


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _sync(folder: Path) -> None:
    """Make a folder's new entries durable, if its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
