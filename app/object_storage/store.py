"""A model store in a bucket, laid out as a folder is, with one object more beside each version.

    NAME/VERSION/…            the bundle's files; manifest.json is written last, and only if there is none
    NAME/VERSION.publisher    the sha256 of the manifest of the bundle that has this number, written first
    NAME/VERSION.held         if the version is held back, with the reason; written before the manifest
    NAME/pinned               if a version is pinned
    NAME/preview              if a version is in preview

A version exists once it has a manifest. So an interrupted push has published nothing, and a reader that finds the
manifest finds every other file. The object of the publisher keeps two pushes from writing into one version: a push
that finds another digest in it gives up before it writes anything.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.contract.bundle import MANIFEST, Bundle, Manifest, parse_manifest
from app.contract.location import BucketAddress
from app.contract.store import (
    HELD,
    PINNED,
    PREVIEW,
    WRITTEN_BY,
    is_model_name,
    is_version,
    serving_order,
    version_in_mark,
    versions_held_back,
)
from app.errors import BundleNotFound, BundleTampered, StoreConflict
from app.object_storage.bucket import Bucket, Entry
from app.system.invocation import command_line

_PUBLISHER = ".publisher"


@dataclass(frozen=True)
class Contents:
    """The result of one listing, by model: the objects of each version, and the markers beside the versions."""

    files: dict[str, dict[int, dict[str, Entry]]]
    marks: dict[str, dict[str, Entry]]

    def names(self) -> list[str]:
        """Return the models that have a version, sorted."""
        return sorted(name for name in self.files if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Return the published versions in ascending order."""
        return sorted(version for version, files in self.files.get(name, {}).items() if MANIFEST in files)

    def unfinished(self, name: str) -> list[int]:
        """Return the versions that a push has begun and not published, in ascending order."""
        begun = {mark.removesuffix(_PUBLISHER) for mark in self.marks.get(name, {}) if mark.endswith(_PUBLISHER)}
        numbers = {int(each) for each in begun if is_version(each)} | set(self.files.get(name, {}))
        return sorted(numbers - set(self.versions(name)))

    def held_back(self, name: str) -> set[int]:
        """Return the versions that have a marker."""
        return versions_held_back(self.marks.get(name, {}))

    @classmethod
    def of(cls, entries: dict[str, Entry]) -> "Contents":
        files: dict[str, dict[int, dict[str, Entry]]] = defaultdict(lambda: defaultdict(dict))
        marks: dict[str, dict[str, Entry]] = defaultdict(dict)
        for path, entry in entries.items():
            name, _, below = path.partition("/")
            version, _, file = below.partition("/")
            if is_model_name(name) and file and is_version(version):
                files[name][int(version)][file] = entry
            elif is_model_name(name) and not file:
                marks[name][below] = entry
        return cls({name: dict(versions) for name, versions in files.items()}, dict(marks))


@dataclass
class BucketStore:
    """The models under an address.

    Each call queries the bucket again, except for objects that `contents` has returned.
    """

    address: BucketAddress
    _known: dict[str, tuple[str, bytes]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.bucket = Bucket(self.address)

    def contents(self) -> Contents:
        """List the bucket. Raises an ObjectStoreError, as every method that queries the bucket does."""
        return Contents.of(self.bucket.entries())

    def manifest(self, contents: Contents, name: str, version: int) -> tuple[Manifest, bytes]:
        """Return a version's manifest, read and as bytes. Raises BundleNotFound, -Incompatible or -Tampered."""
        path = f"{name}/{version}/{MANIFEST}"
        text = self._small(path, contents.files.get(name, {}).get(version, {}).get(MANIFEST))
        if text is None:
            raise BundleNotFound(f"{self.address.url}/{path} does not exist.")
        manifest = parse_manifest(text, f"{self.address.url}/{name}/{version}")
        if (manifest.name, manifest.version) != (name, version):
            raise BundleTampered(
                f"{self.address.url}/{name}/{version} holds {manifest.name} version {manifest.version}: push it again."
            )
        return manifest, text

    def pinned(self, contents: Contents, name: str) -> int | None:
        """Return the pinned version, None if none is. Raises BundleNotFound if the pin names no version."""
        return self._version_in(contents, name, PINNED)

    def preview(self, contents: Contents, name: str) -> int | None:
        """Return the version in preview, None if there is none. Raises BundleNotFound if the mark names no version."""
        return self._version_in(contents, name, PREVIEW)

    def serving_order(self, contents: Contents, name: str) -> list[int]:
        """Return the model's versions in the order of `app.contract.store.serving_order`. Raises BundleNotFound."""
        return serving_order(
            contents.versions(name), held_back=contents.held_back(name), pinned=self.pinned(contents, name)
        )

    def why_held_back(self, name: str, version: int) -> str | None:
        """Return the reason in a version's marker; None if it is not held back."""
        reason = self.bucket.read(f"{name}/{version}{HELD}")
        return None if reason is None else reason.decode("utf-8", "replace").strip()

    def push(
        self, bundle: Bundle, *, held_back: str | None, advance: Callable[[str], None] = lambda _path: None
    ) -> bool:
        """Publish a version, and return whether it is new. An interrupted push of the same content is completed.

        `advance` is called before each object is written. Raises StoreConflict if the number belongs to another bundle.
        """
        name, version, place = bundle.name, bundle.version, f"{bundle.name}/{bundle.version}"
        manifest = (bundle.path / MANIFEST).read_bytes()
        claim = f"{hashlib.sha256(manifest).hexdigest()}\n".encode()
        published = self.bucket.read(f"{place}/{MANIFEST}")
        if published == manifest:
            return False
        advance(f"{place}{_PUBLISHER}")
        if published is not None or self.bucket.create(f"{place}{_PUBLISHER}", claim) != claim:
            raise self._taken(name, version, published=published is not None)
        for file in sorted(bundle.manifest.files):
            advance(f"{place}/{file}")
            self.bucket.upload(f"{place}/{file}", bundle.path / file)
        advance(f"{place}{HELD}")
        if held_back is None:
            if self.why_held_back(name, version) is not None:  # left by an interrupted push
                self.bucket.delete(f"{place}{HELD}")
        else:
            self.bucket.upload(f"{place}{HELD}", f"{held_back}\n".encode())
        advance(f"{place}/{MANIFEST}")
        if self.bucket.create(f"{place}/{MANIFEST}", manifest) != manifest:
            raise self._taken(name, version, published=True)
        return True

    def pin(self, name: str, version: int) -> None:
        """Pin this version, so that it is served even if there are newer ones. Raises BundleNotFound."""
        self.check_has(self.contents(), name, version)
        self.bucket.upload(f"{name}/{PINNED}", f"{version}\n".encode())
        self._end_preview_of(name, version)

    def unpin(self, name: str) -> None:
        """Remove the pin, so that the newest version that is not held back is served again."""
        self.bucket.delete(f"{name}/{PINNED}")

    def begin_preview(self, name: str, version: int) -> None:
        """Serve this version beside the live one, to requests that name it. Raises BundleNotFound."""
        self.check_has(self.contents(), name, version)
        self.bucket.upload(f"{name}/{PREVIEW}", f"{version}\n".encode())

    def end_preview(self, name: str) -> None:
        """Serve the live version alone."""
        self.bucket.delete(f"{name}/{PREVIEW}")

    def promote(self, name: str, version: int) -> None:
        """Release a version that is held back. Raises BundleNotFound, or StoreConflict if it is not held back."""
        contents = self.contents()
        self.check_has(contents, name, version)
        if version not in contents.held_back(name):
            raise StoreConflict(f"Version {version} of {name} is not held back.")
        self.bucket.delete(f"{name}/{version}{HELD}")
        self._end_preview_of(name, version)

    def remove(self, name: str, version: int) -> None:
        """Delete a version that is not to be served, its manifest first, or the remains of an interrupted push.

        Raises BundleNotFound, or StoreConflict if it is the one to be served.
        """
        contents = self.contents()
        if version not in contents.unfinished(name):
            self.check_has(contents, name, version)
            if version in self.serving_order(contents, name)[:1]:
                raise StoreConflict(
                    f"Version {version} of {name} is live, so it is not removed. Serve another version first: "
                    + self.command("pin", name, "VERSION")
                )
        place = f"{name}/{version}"
        self.bucket.delete(f"{place}/{MANIFEST}")
        files = contents.files.get(name, {}).get(version, {})
        others = [f"{place}/{file}" for file in sorted(files) if file != MANIFEST]
        marks = [f"{place}{mark}" for mark in (HELD, _PUBLISHER) if f"{version}{mark}" in contents.marks.get(name, {})]
        if others or marks:
            self.bucket.delete(*others, *marks)
        self._end_preview_of(name, version)

    def check_has(self, contents: Contents, name: str, version: int | None = None) -> None:
        """Raise BundleNotFound, with those that exist, if the model or the version does not."""
        versions = contents.versions(name)
        if not versions:
            known = ", ".join(contents.names()) or "none"
            raise BundleNotFound(f"There is no model '{name}' in {self.address.url}; it holds: {known}.")
        if version is not None and version not in versions:
            known = ", ".join(map(str, versions))
            raise BundleNotFound(f"{self.address.url}/{name} has no version {version}; it has: {known}.")

    def command(self, *words: str) -> str:
        """Return `python -m app models` with these words, for this store and ready to paste."""
        return command_line("app", "models", *words, "--model-store", self.address.url)

    def _version_in(self, contents: Contents, name: str, mark: str) -> int | None:
        content = self._small(f"{name}/{mark}", contents.marks.get(name, {}).get(mark))
        if content is None:
            return None
        command = self.command(WRITTEN_BY[mark], name, "VERSION")
        return version_in_mark(content, path=f"{self.address.url}/{name}/{mark}", command=command)

    def _end_preview_of(self, name: str, version: int) -> None:
        with suppress(BundleNotFound):
            if self.preview(self.contents(), name) == version:
                self.end_preview(name)

    def _small(self, path: str, entry: Entry | None) -> bytes | None:
        """Read an object of a listing; the same one, by its tag, only once."""
        if entry is None:
            self._known.pop(path, None)
            return None
        tag, content = self._known.get(path, ("", b""))
        if not entry.tag or entry.tag != tag:
            found = self.bucket.read(path)
            if found is None:
                return None
            self._known[path] = entry.tag, found
            return found
        return content

    def _taken(self, name: str, version: int, *, published: bool) -> StoreConflict:
        where = f"Version {version} of {name} in {self.address.url}"
        if published:
            return StoreConflict(f"{where} is already published with other content. Push under another version number.")
        return StoreConflict(
            f"{where} was begun by another push, which may still run. If it was interrupted, remove what it left: "
            + self.command("remove", name, str(version))
        )


def manifest_digest(path: Path) -> str:
    """Return the sha256 of a bundle's manifest, by which an address pins it."""
    return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
