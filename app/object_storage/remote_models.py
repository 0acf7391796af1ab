"""A bucket with the methods of a folder of models, for the commands `models`."""

from pathlib import Path

from app.contract.bundle import Manifest
from app.contract.store import serving_order
from app.object_storage.mirror import Mirror
from app.object_storage.store import Contents


class RemoteModels:
    """The content of a mirror's bucket, from one listing; each change lists it again.

    Its methods are those of `ModelStore`, and raise an ObjectStoreError besides.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.address = mirror.address
        self.root = mirror.address.url
        self._mirror = mirror
        self._remote = mirror.remote
        self._contents: Contents | None = None

    @property
    def contents(self) -> Contents:
        if self._contents is None:
            self._contents = self._remote.contents()
        return self._contents

    def names(self) -> list[str]:
        return self.contents.names()

    def versions(self, name: str) -> list[int]:
        return self.contents.versions(name)

    def unfinished(self) -> list[tuple[str, int]]:
        """Return the versions that a push has begun and not published."""
        names = sorted({*self.contents.files, *self.contents.marks})
        return [(name, version) for name in names for version in self.contents.unfinished(name)]

    def held_back(self, name: str) -> set[int]:
        return self.contents.held_back(name)

    def pinned(self, name: str) -> int | None:
        return self._remote.pinned(self.contents, name)

    def serving_order(self, name: str, pinned: int | None) -> list[int]:
        return serving_order(self.versions(name), held_back=self.held_back(name), pinned=pinned)

    def manifest(self, name: str, version: int) -> Manifest:
        return self._remote.manifest(self.contents, name, version)[0]

    def path(self, name: str, version: int) -> Path:
        """Return the version's path in this machine's copy; it is pulled unless it is there."""
        return self._mirror.fetch(name, version)

    def newest(self, name: str) -> Path:
        return self._mirror.fetch(name)

    def check_has(self, name: str, version: int | None = None) -> None:
        self._remote.check_has(self.contents, name, version)

    def why_held_back(self, name: str, version: int) -> str | None:
        return self._remote.why_held_back(name, version)

    def pin(self, name: str, version: int) -> None:
        self._remote.pin(name, version)
        self._contents = None

    def unpin(self, name: str) -> None:
        self._remote.unpin(name)
        self._contents = None

    def preview(self, name: str) -> int | None:
        return self._remote.preview(self.contents, name)

    def begin_preview(self, name: str, version: int) -> None:
        self._remote.begin_preview(name, version)
        self._contents = None

    def end_preview(self, name: str) -> None:
        self._remote.end_preview(name)
        self._contents = None

    def promote(self, name: str, version: int) -> None:
        self._remote.promote(name, version)
        self._contents = None

    def remove(self, name: str, version: int) -> None:
        self._remote.remove(name, version)
        self._contents = None

    def command(self, *words: str) -> str:
        return self._remote.command(*words)
