"""The model store: `<root>/<name>/<integer version>/`, each a bundle. It lists paths and opens no bundle.

`<root>/<name>/pinned`, if it exists, names the one version of the model that is to be served. If
`<root>/<name>/unloaded` exists, the model is not to be served.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from app.errors import BundleNotFound
from app.system.atomic_write import atomic_write
from app.system.invocation import command_line

_PINNED = "pinned"
_UNLOADED = "unloaded"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
NAME_RULE = "1 to 64 letters, digits, dots, dashes and underscores, beginning and ending with a letter or digit"


def is_model_name(name: str) -> bool:
    """Say whether `name` can be a model's name: it is a folder and a part of URLs on every system."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class ModelStore:
    """A folder of models. Folders whose names are no model name or no version are not looked at."""

    root: Path

    def names(self) -> list[str]:
        """Return the names of the models that have a version, sorted. Raises BundleNotFound if there is no store."""
        try:
            folders = [entry for entry in self.root.iterdir() if entry.is_dir()]
        except OSError as exc:
            reason = "does not exist" if isinstance(exc, FileNotFoundError) else f"cannot be read ({exc.strerror})"
            raise BundleNotFound(f"The model store {self.root} {reason}. Set IMAGECLASS_MODEL_STORE.") from exc
        return sorted(folder.name for folder in folders if is_model_name(folder.name) and self.versions(folder.name))

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model in ascending order; none for a model that is not there.

        Raises BundleNotFound if its folder cannot be read.
        """
        if not is_model_name(name):
            return []
        folder = self.root / name
        try:
            return sorted(int(entry.name) for entry in folder.iterdir() if _VERSION.fullmatch(entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise BundleNotFound(f"{folder} cannot be read ({exc.strerror}). Set IMAGECLASS_MODEL_STORE.") from exc

    def path(self, name: str, version: int) -> Path:
        return self.root / name / str(version)

    def newest(self, name: str) -> Path:
        """Return the path of a model's highest version. Raises BundleNotFound."""
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise BundleNotFound(f"There is no model '{name}' in {self.root}; it holds: {known}.")
        return self.path(name, versions[-1])

    def pinned(self, name: str) -> int | None:
        """Return the pinned version, None if none is. Raises BundleNotFound if the pin names no version."""
        file = self.root / name / _PINNED
        try:
            text = file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise BundleNotFound(f"{file} cannot be read: {exc.strerror}.") from exc
        if not _VERSION.fullmatch(text):
            raise BundleNotFound(
                f"{file} names no version. Pin one: {command_line('app', 'models', 'pin', name, 'VERSION')}"
            )
        return int(text)

    def pin(self, name: str, version: int) -> None:
        """Have this version served, whatever newer ones there are. Raises BundleNotFound, or OSError."""
        if version not in self.versions(name):
            known = ", ".join(str(version) for version in self.versions(name)) or "none"
            raise BundleNotFound(f"{self.root / name} has no version {version}; it has: {known}.")
        with atomic_write(self.root / name / _PINNED, mode=0o644) as stream:
            stream.write(f"{version}\n".encode())

    def unpin(self, name: str) -> None:
        """Have the newest version served again. Raises OSError."""
        (self.root / name / _PINNED).unlink(missing_ok=True)

    def is_unloaded(self, name: str) -> bool:
        """Say whether the model is marked as one that is not to be served."""
        return (self.root / name / _UNLOADED).exists()

    def mark(self, name: str, *, unloaded: bool) -> None:
        """Mark the model as one that is not to be served, or as one that is. Raises OSError."""
        file = self.root / name / _UNLOADED
        if unloaded:
            file.touch()
        else:
            file.unlink(missing_ok=True)
