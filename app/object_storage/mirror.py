"""This machine's copy of a bucket: a folder of models that workers serve as they serve any other.

The process that holds the lock of the copy, one per machine, polls the bucket and pulls the versions to be served. The
result is written beside the models, so that every worker can report it, even after a restart without the bucket. The
rules:

- for each model, the version that is to be served is pulled, or else the next in order;
- a version appears by a rename, when every file has its digest: readers of the folder see all of it or nothing;
- a version that the bucket no longer has goes from the copy once another one is there to be served;
- a bucket that cannot be reached, or has lost a model, changes nothing.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import BaseModel, ValidationError

from app.contract.bundle import MANIFEST, open_bundle
from app.contract.location import BucketAddress, Location
from app.contract.store import ModelStore
from app.errors import BundleError, BundleNotFound, InvalidSetting, ObjectStoreError, StoreNotWritable
from app.object_storage.pull import PULLING, pull, version_bytes
from app.object_storage.store import BucketStore, Contents, manifest_digest
from app.system.atomic_write import atomic_write
from app.system.cache_folder import cache_folder
from app.system.folder_lock import lock_if_free
from app.system.invocation import command_line

_OWN = ".mirror"
"""The folder beside the models with the lock and the state. No reader takes it for a model."""
_STATE = "state.json"
_TRY_AGAIN_S = 30.0
"""How long to wait before another try to pull a version that could not be written."""
_SPARE_BYTES = 16 << 20
"""Left free on the disk."""
_WAIT_S = 0.05

_log = structlog.stdlib.get_logger(__name__)


class Rejected(BaseModel):
    """A version that is not pulled again before `until` (None: never), unless its manifest gets another tag."""

    tag: str
    reason: str
    until: float | None = None


class State(BaseModel):
    """The state that all processes of this machine share: whether the bucket answered the last poll, since when, and
    which versions were pulled."""

    reachable: bool = False
    since: datetime
    tags: dict[str, str] = {}
    rejected: dict[str, Rejected] = {}
    problems: dict[str, str] = {}


@dataclass(frozen=True)
class StoreHealth:
    """Whether the bucket answered the last poll, and since when that is so."""

    kind: str
    reachable: bool
    since: datetime


class Mirror:
    """The copy of the bucket at `address` in the folder of `store`, of at most `max_bytes`."""

    def __init__(self, address: BucketAddress, store: ModelStore, *, max_bytes: int) -> None:
        self.address = address
        self.store = store
        self.remote = BucketStore(address)
        self._max_bytes = max_bytes
        self._own = self.store.root / _OWN
        self._file = self._own / _STATE
        self._unwritten: State | None = None

    def start(self) -> None:
        """Pull the versions to be served before the start; one process does, and others wait for it.

        If the bucket cannot be reached, the versions in the copy are served. Raises an ImageclassError if the copy has
        none.
        """
        self._make_folder()
        began = time.time()
        with self._waiting_for_lock():
            if self._asked_at() < began:
                self._begin()
        if not self.store.names():
            push = command_line("app", "models", "push", "NAME", "--to", self.address.url)
            raise BundleNotFound(
                " ".join(self._read().problems.values()) or f"{self.address.url} holds no model. Push one: {push}"
            )

    def follow(self, *, every_s: float) -> bool:
        """Poll the bucket, unless another process does or did recently; return whether it could be reached."""
        with lock_if_free(self._own) as ours:
            if ours and not 0 <= time.time() - self._asked_at() < every_s:
                self._ask()
        return self._read().reachable

    def fetch(self, name: str, version: int | None = None) -> Path:
        """Return the path of a version in the copy, the newest if none is named; it is pulled unless it is there.

        Raises an ImageclassError.
        """
        self._make_folder()
        with self._waiting_for_lock():
            contents = self.remote.contents()
            self.remote.check_has(contents, name, version)
            version = version or contents.versions(name)[-1]
            state = self._read()
            self._obtain(contents, name, version, state)
            self._write(state)
        return self.store.path(name, version)

    def copy_for_training(self, name: str, versions: set[int]) -> None:
        """Pull the versions that publishing the model's next version needs: the newest, the live one, and `versions`.

        Versions of this machine that were not pushed stay. Raises an ImageclassError.
        """
        self._make_folder()
        with self._waiting_for_lock():
            contents, state, problems = self.remote.contents(), self._read(), dict[str, str]()
            self._follow_model(contents, name, state, problems, forget=False)
            for version in sorted({*contents.versions(name)[-1:], *versions}):
                self.remote.check_has(contents, name, version)
                self._obtain(contents, name, version, state)
            self._write(state)

    def fetch_older(self) -> bool:
        """Pull, of each model, the first version in order that is not in the copy; return whether there was any."""
        with self._waiting_for_lock():
            contents, state, found = self.remote.contents(), self._read(), False
            for name in [] if self.address.digest else contents.names():
                there = self.store.versions(name)
                for version in self.remote.serving_order(contents, name):
                    if version not in there and self._have(contents, name, version, state):
                        found = True
                        break
            self._write(state)
        return found

    def health(self) -> StoreHealth:
        """Return the bucket's state for `/health`, without its name: `/health` is open to anyone.

        The log has the name.
        """
        state = self._read()
        return StoreHealth(self.address.url.partition(":")[0], state.reachable, state.since)

    # Polling

    def _begin(self) -> None:
        """Poll for the first time: try rejected versions again, and check those that would be served from here."""
        for left_behind in self.store.root.glob(f"*/{PULLING}*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        state = self._read()
        state.rejected, state.problems = {}, {}
        for name in self.store.names():
            served = self._served_here(name)
            for version in self.store.versions(name):
                if not self._is_sound(self.store.path(name, version), with_files=version in served):
                    self._drop(name, version, state)
        self._write(state)
        self._ask()

    def _is_sound(self, path: Path, *, with_files: bool) -> bool:
        try:
            if with_files:
                open_bundle(path)
            return self.address.digest in (None, manifest_digest(path))
        except (BundleError, OSError):
            return False

    def _ask(self) -> None:
        state = self._read()
        try:
            contents = self.remote.contents()
            problems = self._follow(contents, state)
        except ObjectStoreError as exc:
            if state.reachable:
                state.since = datetime.now(UTC)
            if state.problems.get("") != str(exc):
                serves = (
                    "The versions that were pulled stay live." if self.store.names() else "Nothing was pulled before."
                )
                _log.warning("object store not reachable", code=exc.code, reason=f"{exc} {serves}")
            state.reachable, state.problems = False, {**state.problems, "": str(exc)}
        else:
            if not state.reachable:
                state.since = datetime.now(UTC)
                _log.info("object store reachable", store=str(self.address))
            for name, sentence in problems.items():
                if state.problems.get(name) != sentence:
                    _log.error("the object store is not followed", model=name or None, reason=sentence)
            state.reachable, state.problems = True, problems
        self._write(state)

    def _follow(self, contents: Contents, state: State) -> dict[str, str]:
        """Synchronise the copy with the bucket; return the problems, by model."""
        problems: dict[str, str] = {}
        if self.address.digest is not None:
            self._follow_digest(contents, state, problems)
            return problems
        for name in contents.names():
            try:
                self._follow_model(contents, name, state, problems)
            except BundleNotFound as exc:  # a pin that names no version
                problems[name] = str(exc)
            except OSError as exc:
                problems[name] = f"{self.store.root / name} cannot be changed: {exc.strerror}."
        for name in set(self.store.names()) - set(contents.names()):
            problems[name] = (
                f"{self.address.url} holds no version of {name} any more. The version that was pulled stays live."
            )
        return problems

    def _follow_model(
        self, contents: Contents, name: str, state: State, problems: dict[str, str], *, forget: bool = True
    ) -> None:
        pinned = self.remote.pinned(contents, name)
        if pinned is not None and pinned not in contents.versions(name):
            problems[name] = f"Version {pinned} of {name} is pinned, but is not in {self.address.url}."
        order = self.remote.serving_order(contents, name)
        served = next((each for each in order if self._have(contents, name, each, state, problems)), None)
        if served is None:
            return
        for version in (self.store.held_back(name) & set(self.store.versions(name))) - contents.held_back(name):
            # A listing of several pages may have missed a marker that was written meanwhile.
            if self.remote.why_held_back(name, version) is None:
                self.store.promote(name, version)
        if pinned == served != self._pinned_here(name):
            self.store.pin(name, served)
        elif pinned is None:
            self.store.unpin(name)
        self._follow_preview(contents, name, served, state, problems)
        for version in set(self.store.versions(name)) - set(contents.versions(name)) if forget else ():
            self._drop(name, version, state)

    def _follow_preview(
        self, contents: Contents, name: str, served: int, state: State, problems: dict[str, str]
    ) -> None:
        wanted = self.remote.preview(contents, name)
        if wanted in {None, served} or not self._have(contents, name, wanted, state, problems):
            self.store.end_preview(name)
        elif wanted != self._preview_here(name):
            self.store.begin_preview(name, wanted)

    def _follow_digest(self, contents: Contents, state: State, problems: dict[str, str]) -> None:
        for name in contents.names():
            for version in reversed(contents.versions(name)):
                try:
                    _, text = self.remote.manifest(contents, name, version)
                except BundleError:
                    continue
                if hashlib.sha256(text).hexdigest() == self.address.digest:
                    self._have(contents, name, version, state, problems)
                    return
        problems[""] = (
            f"No version in {self.address.url} has a {MANIFEST} with the sha256 {self.address.digest}. "
            "`models push` and `models show` print what to set."
        )

    # Versions

    def _have(
        self, contents: Contents, name: str, version: int, state: State, problems: dict[str, str] | None = None
    ) -> bool:
        """Pull a version unless it is in the copy; return whether it is there. Problems are recorded."""
        if version not in contents.versions(name):
            return False
        key, tag = f"{name}/{version}", contents.files[name][version][MANIFEST].tag
        problems = {} if problems is None else problems
        rejected = state.rejected.get(key)
        if rejected is not None and rejected.tag == tag and (rejected.until is None or time.time() < rejected.until):
            problems.setdefault(name, rejected.reason)
            return False
        try:
            self._obtain(contents, name, version, state)
        except (BundleError, StoreNotWritable) as exc:
            until = None if isinstance(exc, BundleError) else time.time() + _TRY_AGAIN_S
            state.rejected[key] = Rejected(tag=tag, reason=str(exc), until=until)
            problems.setdefault(name, str(exc))
            return False
        state.rejected.pop(key, None)
        return True

    def _obtain(self, contents: Contents, name: str, version: int, state: State) -> None:
        key, tag = f"{name}/{version}", contents.files[name][version][MANIFEST].tag
        if state.tags.get(key) == tag and version in self.store.versions(name):
            return
        size = version_bytes(contents, name, version)
        self._make_room(name, version, size, state)
        began = time.monotonic()
        pull(self.remote, contents, name, version, self.store)
        state.tags[key] = tag
        self._write(state)
        seconds = round(time.monotonic() - began, 3)
        _log.info("version pulled", model=name, version=version, bytes=size, seconds=seconds)

    def _make_room(self, name: str, version: int, size: int, state: State) -> None:
        """Remove old versions until a new one fits, but none that is to be served. Raises StoreNotWritable."""
        versions = {(each, number) for each in self.store.names() for number in self.store.versions(each)}
        sizes = {each: _bytes_of(self.store.path(*each)) for each in versions - {(name, version)}}
        served = {(each, number) for each in self.store.names() for number in self._served_here(each)}
        removable = sorted(sizes.keys() - served, key=lambda each: (each[1], each[0]))
        while not self._fits(size, sizes) and removable:
            oldest = removable.pop(0)
            del sizes[oldest]
            self._drop(*oldest, state)
        if not self._fits(size, sizes):
            bound = sum(sizes.values()) + size > self._max_bytes
            why = (
                f"with the served versions, it exceeds IMAGECLASS_MODEL_CACHE_BYTES={self._max_bytes}. Raise that"
                if bound
                else "the disk is full. Make room there"
            )
            raise StoreNotWritable(
                f"Version {version} of {name} has {size} bytes and is not copied to {self.store.root}: {why}."
            )

    def _fits(self, size: int, sizes: dict[tuple[str, int], int]) -> bool:
        free = shutil.disk_usage(self.store.root).free
        return sum(sizes.values()) + size <= self._max_bytes and size + _SPARE_BYTES <= free

    def _served_here(self, name: str) -> list[int]:
        in_preview = self._preview_here(name)
        served = self.store.serving_order(name, self._pinned_here(name))[:1]
        return served if in_preview is None else [*served, in_preview]

    def _pinned_here(self, name: str) -> int | None:
        try:
            return self.store.pinned(name)
        except BundleNotFound:
            return None

    def _preview_here(self, name: str) -> int | None:
        try:
            return self.store.preview(name)
        except BundleNotFound:
            return None

    def _drop(self, name: str, version: int, state: State) -> None:
        state.tags.pop(f"{name}/{version}", None)
        if version in self.store.versions(name):
            self.store.remove(name, version)

    # State

    def _make_folder(self) -> None:
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            reason = None if os.access(self._own, os.W_OK) else "this user may not, or it is read-only"
        except OSError as exc:
            reason = exc.strerror
        if reason is not None:
            raise InvalidSetting(
                f"{self._own} cannot be written: {reason}. Set IMAGECLASS_MODEL_CACHE to a writable folder or volume: "
                "versions pulled from the object store are kept there."
            )

    def _asked_at(self) -> float:
        try:
            return self._file.stat().st_mtime
        except OSError:
            return 0.0

    def _read(self) -> State:
        if self._unwritten is not None:
            return self._unwritten
        try:
            return State.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return State(since=datetime.now(UTC))

    def _write(self, state: State) -> None:
        try:
            with atomic_write(self._file, mode=0o644) as stream:
                stream.write(state.model_dump_json().encode())
            self._unwritten = None
        except OSError:  # the disk is full, which is reported elsewhere
            self._unwritten = state

    @contextmanager
    def _waiting_for_lock(self) -> Iterator[None]:
        while True:
            with lock_if_free(self._own) as ours:
                if ours:
                    yield
                    return
            time.sleep(_WAIT_S)


def mirror_at(location: Location, cache: Path | None, *, max_bytes: int) -> Mirror | None:
    """Return this machine's copy of a bucket, below `cache` or the user's folder of caches; None for a folder."""
    if isinstance(location, Path):
        return None
    return Mirror(location, folder_at(location, cache), max_bytes=max_bytes)


def folder_at(location: Location, cache: Path | None) -> ModelStore:
    """Return the folder of models itself, or that of the copy of a bucket. Each address has a copy of its own."""
    if isinstance(location, Path):
        return ModelStore(location)
    cache = cache or cache_folder("models")
    if cache is None:
        raise InvalidSetting(
            "This user has no home folder in which to keep the models of a bucket. Set IMAGECLASS_MODEL_CACHE."
        )
    bucket = location.url.split("/")[2]
    return ModelStore(cache / f"{bucket}-{hashlib.sha256(str(location).encode()).hexdigest()[:12]}")


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
