"""Follow the store while the service answers: new versions, pins, and removed versions.

A thread of its own scans the store, loads versions to be served, and hands them to the catalogue when they are checked
and tuned. No request waits for it. The rules:

- the pinned version is served, else the newest that passes its check and is not held back;
- a version is tried when two scans in a row have found the same files, so not while it is being copied;
- a rejected version is tried again only when its files have changed, and the live one stays;
- a pin that cannot be followed leaves the live version, because some workers may still follow the pin before it;
- the version in preview, if the store names one, is served beside the live one as long as the mark is there;
- only the mark for unloading removes a model, nothing else that happens to the store: a model in memory has passed its
  check.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from app.contract.fingerprint import Fingerprint, fingerprint_of
from app.contract.store import PREVIEW
from app.errors import BundleNotFound, ImageclassError
from app.serving.batcher import stopping_error
from app.serving.catalogue import Catalogue
from app.serving.pauses import LoadPauses
from app.serving.versions import LoadedStore, Loader, Rejection, TunedModel, say_what_is_live
from app.system.folder_lock import taking_turns

_PATIENT_LOOKS = 20
"""A folder counts as a half-copied bundle if this many scans in a row find it unchanged, without a manifest."""
_CALM_GLANCES = 3
"""At most this number of intervals pass in a row without a scan, if no version or mark was added or removed. The next
scan notices files that were overwritten in place. A scan is the most expensive work of an idle service."""

_Result = TypeVar("_Result")

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class _Seen:
    """The files that the last scan found of a version, and how many scans in a row have found the same."""

    fingerprint: Fingerprint | None
    looks: int


class Watcher:
    """Keeps a catalogue in line with its store; an async context manager for the application's lifespan."""

    def __init__(self, loader: Loader, loaded: LoadedStore, catalogue: Catalogue, *, interval_s: float) -> None:
        self._loader = loader
        self._store = loader.store
        self._catalogue = catalogue
        self._interval_s = interval_s
        self._live = {model.name: model for model in loaded.models}
        self._previews: dict[str, TunedModel] = {}
        self._rejected: dict[tuple[str, int | None], Rejection] = {
            (rejection.name, rejection.version): rejection for rejection in loaded.rejections
        }
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._said: dict[str, str] = {}
        self._failure = ""
        self._is_settling = False
        self._names: list[str] = []  # the models that the last scan knew
        self._changed_at: list[int] = []  # what the last glance saw
        self._calm_glances = 0
        self._waiting: list[asyncio.Future[None]] = []  # for the end of a scan; used on the event loop only
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._serving_thread: int

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._serving_thread = threading.get_ident()
        if self._interval_s:
            # A daemon, so that a process that must end at once does not wait for it.
            self._thread = threading.Thread(target=self._watch, name="reload", daemon=True)
            self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._wake_waiting()
        if self._thread is not None:
            # It may be loading: a thread still in native code can crash the ending process.
            await asyncio.to_thread(self._thread.join)

    async def next_look(self) -> None:
        """Wait for the end of a scan, which may be one that already runs. Two waits include a whole scan.

        Raises ShuttingDown if there is no further scan.
        """
        if not self._stop.is_set():
            looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(looked)
            await looked
        if self._stop.is_set():
            raise stopping_error()

    def glance(self) -> None:
        """Scan the store if a version or a mark was added or removed, if a scan is waited for, or if it is time."""
        before, self._changed_at = self._changed_at, self._store.changed_at(self._names)
        self._calm_glances += 1
        is_calm = self._changed_at == before and not self._is_settling and not self._waiting
        if not is_calm or self._calm_glances > _CALM_GLANCES:
            self._calm_glances = 0
            self.look()

    def look(self) -> None:
        """Scan the whole store once, and make ready versions live. Call it in the watcher's thread only."""
        self._is_settling = False
        try:
            names = self._store.names()
        except BundleNotFound as exc:
            self._say("", f"{exc} The models in memory stay live.")
            return
        self._say("", None)
        self._names = sorted({*names, *self._live, *(name for name, _ in self._rejected)})
        for name in self._names:
            if self._is_ending():
                return
            try:
                self._look_at(name)
                self._look_at_preview(name)
            except OSError as exc:
                self._say(
                    name, f"{self._store.root / name} cannot be read: {exc.strerror}. The version in memory stays live."
                )
        self._show_rejections()
        self._on_loop(self._wake_waiting)

    def _wake_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for looked in waiting:
            if not looked.done():
                looked.set_result(None)

    def _watch(self) -> None:
        # Keep this thread's priority: with all cores busy, a low-priority load would take ten times as long, and could
        # hold the interpreter's lock while not scheduled. OpenVINO's threads would keep the priority for good.
        while not self._stop.wait(self._interval_s / 2 if self._is_settling else self._interval_s):
            try:
                self.glance()
            except Exception as exc:  # noqa: BLE001 - the next scan may succeed
                if self._failure != repr(exc):  # log it once, not twice a second
                    self._failure = repr(exc)
                    _log.exception("scanning the model store failed")

    def _is_ending(self) -> bool:
        return self._stop.is_set() or self._catalogue.stopping

    def _look_at(self, name: str) -> None:
        if self._store.is_unloaded(name) and self._unload(name):
            return
        versions = self._store.versions(name)
        pin = self._pin(name, versions)
        order = self._store.serving_order(name, pin)
        self._forget(name, {*order, self._wanted_preview(name)})
        live = self._live.get(name)
        if live is not None and pin is not None:
            order = [pin]
        elif live is not None and (name, None) in self._rejected:
            return
        is_gone = live is not None and live.version not in versions
        # Missing once, it may be in the middle of a move.
        is_missed = live is not None and is_gone and self._look_at_version(name, live.version).looks < 2
        is_settling = is_missed
        for version in order:
            seen = self._look_at_version(name, version)
            is_settling |= seen.looks < 2
            if live is not None and version == live.version:
                self._say(name, None)
                self._check_unchanged(live, seen)
                return
            if self._is_ready(name, version, seen):
                if live is None or version > live.version or version == pin or not is_missed:
                    self._try(name, version, self._take_live)
                return
        if live is not None and is_gone and not is_settling:
            self._say(name, f"Version {live.version} is no longer in the store. It stays live in memory.")

    def _look_at_preview(self, name: str) -> None:
        """Load the version that is to be in preview, or end the preview."""
        live, shown, wanted = self._live.get(name), self._previews.get(name), self._wanted_preview(name)
        if live is None or wanted in {None, live.version}:
            if shown is not None:
                del self._previews[name]
                self._wait_for(self._catalogue.end_preview(name))
                _log.info("preview ended", model=name, version=shown.version)
            return
        seen = self._look_at_version(name, wanted)
        is_shown = shown is not None and (shown.version, shown.fingerprint) == (wanted, seen.fingerprint)
        if not is_shown and self._is_ready(name, wanted, seen):
            self._try(name, wanted, self._show_preview)

    def _wanted_preview(self, name: str) -> int | None:
        problem = None
        try:
            wanted = self._store.preview(name)
            if wanted is not None and wanted not in self._store.versions(name):
                problem = f"Version {wanted} of {name} is to be previewed, but is not in the store."
        except BundleNotFound as exc:
            problem = str(exc)
        self._say(f"{name}/{PREVIEW}", problem)
        return wanted if problem is None else None

    def _unload(self, name: str) -> bool:
        """Unload a marked model; return whether it is unloaded.

        A model that requests need is not unloaded: see `Catalogue.may_remove`.
        """
        if name in self._live:
            if not self._wait_for(self._catalogue.remove(name)):
                return False
            live = self._live.pop(name)
            self._previews.pop(name, None)
            _log.info("model unloaded", model=name, version=live.version)
        self._forget(name, set())
        self._rejected.pop((name, None), None)
        return True

    def _pin(self, name: str, versions: Iterable[int]) -> int | None:
        """Return the pinned version, or None. An invalid pin is recorded as rejected."""
        try:
            pin = self._store.pinned(name)
        except BundleNotFound as exc:
            self._reject(Rejection(name, None, exc.code, str(exc)))
            return None
        self._rejected.pop((name, None), None)
        if pin is not None and pin not in versions:
            reason = f"Version {pin} of {name} is pinned, but is not in the store. The live version stays."
            self._reject(Rejection(name, pin, BundleNotFound.code, reason))
        return pin

    def _forget(self, name: str, there: set[int | None]) -> None:
        """Forget the records of versions that are not `there`: they are gone or held back, and not wanted by a mark."""
        for of_name, version in list(self._rejected):
            if of_name == name and version is not None and version not in there:
                del self._rejected[of_name, version]
        live = self._live.get(name)
        for of_name, seen in list(self._seen):
            if of_name == name and seen not in there and (live is None or seen != live.version):
                del self._seen[of_name, seen]

    def _look_at_version(self, name: str, version: int) -> _Seen:
        fingerprint = fingerprint_of(self._store.path(name, version))
        before = self._seen.get((name, version))
        looks = before.looks + 1 if before is not None and before.fingerprint == fingerprint else 1
        seen = self._seen[name, version] = _Seen(fingerprint, looks)
        self._is_settling = self._is_settling or looks == 1
        return seen

    def _is_ready(self, name: str, version: int, seen: _Seen) -> bool:
        """Return whether a version looks complete, has not changed lately, and was not rejected before."""
        rejected = self._rejected.get((name, version))
        if seen.fingerprint is None or (rejected is not None and rejected.fingerprint == seen.fingerprint):
            return False
        if not seen.fingerprint.has_manifest:
            if seen.looks >= _PATIENT_LOOKS:
                reason = f"{self._store.path(name, version)} is not a bundle: it has no manifest.json."
                self._reject(Rejection(name, version, BundleNotFound.code, reason, seen.fingerprint))
            return False
        return seen.looks >= 2

    def _check_unchanged(self, live: TunedModel, seen: _Seen) -> None:
        """Handle a live version whose files have changed: bundles should not change, but people copy over them."""
        name, version = live.name, live.version
        if seen.fingerprint == live.fingerprint:
            self._rejected.pop((name, version), None)
        elif self._is_ready(name, version, seen):
            try:
                if self._loader.is_still(live):
                    self._live[name] = replace(live, fingerprint=seen.fingerprint)
                    self._rejected.pop((name, version), None)
                    return
            except (ImageclassError, OSError) as exc:
                code = exc.code if isinstance(exc, ImageclassError) else BundleNotFound.code
                self._reject(Rejection(name, version, code, str(exc), seen.fingerprint))
                return
            _log.warning(
                "a live version was replaced by another bundle of the same number", model=name, version=version
            )
            self._try(name, version, self._take_live)

    def _try(self, name: str, version: int, serve: Callable[[TunedModel, float], bool]) -> None:
        """Load a version and `serve` it; the second argument is the seconds that the load took."""
        seen = self._seen[name, version]
        with self._turn():
            if self._is_ending():
                return
            began = time.monotonic()
            try:
                pauses = LoadPauses(self._serving_thread, self._stop.wait)
                model = self._loader.load(name, version, like=self._live.get(name), pause=pauses.pause)
            except ImageclassError as exc:
                self._reject(Rejection(name, version, exc.code, str(exc), seen.fingerprint))
                return
            except Exception as exc:  # noqa: BLE001 - the live version goes on serving
                _log.exception("a version could not be loaded", model=name, version=version)
                reason = f"It could not be loaded: {exc!r}."
                self._reject(Rejection(name, version, ImageclassError.code, reason, seen.fingerprint))
                return
            taken = time.monotonic() - began
        # Record the files found before the load: if they have changed since, the next scan notices.
        model = replace(model, fingerprint=seen.fingerprint)
        try:
            is_served = serve(model, round(taken, 3))
        except Exception as exc:  # noqa: BLE001 - as above
            _log.exception("a version could not be served", model=name, version=version)
            reason = f"It could not be served: {exc!r}."
            self._reject(Rejection(name, version, ImageclassError.code, reason, model.fingerprint))
            is_served = False
        if is_served:
            self._rejected.pop((name, version), None)
        else:
            model.loaded.engine.close()

    def _take_live(self, model: TunedModel, load_seconds: float) -> bool:
        is_live = self._wait_for(self._catalogue.replace(model))
        if is_live:
            before = self._live.get(model.name)
            self._live[model.name] = model
            say_what_is_live(model, replaces=None if before is None else before.version, load_seconds=load_seconds)
        return is_live

    def _show_preview(self, model: TunedModel, load_seconds: float) -> bool:
        is_shown = self._wait_for(self._catalogue.preview(model))
        if is_shown:
            self._previews[model.name] = model
            _log.info("model in preview", model=model.name, version=model.version, load_seconds=load_seconds)
        return is_shown

    def _wait_for(self, change: Coroutine[Any, Any, _Result]) -> _Result:
        """Let the event loop make a change of the catalogue, and return its result."""
        return asyncio.run_coroutine_threadsafe(change, self._loop).result()

    def _turn(self) -> AbstractContextManager[None]:
        return taking_turns(self._store.root, self._stop)

    def _reject(self, rejection: Rejection) -> None:
        """Remember, log and count a rejected version, once for the same files."""
        key = (rejection.name, rejection.version)
        before = self._rejected.get(key)
        if before is not None and (before.code, before.fingerprint) == (rejection.code, rejection.fingerprint):
            return
        self._rejected[key] = rejection
        self._show_rejections()  # before the log line, so that /health shows it to readers of the log
        _log.error(
            "version refused",
            model=rejection.name,
            version=rejection.version,
            code=rejection.code,
            reason=rejection.reason,
        )
        self._on_loop(lambda: self._catalogue.count_rejection(rejection))

    def _show_rejections(self) -> None:
        """Show the catalogue the rejected versions that would otherwise be served."""
        by_name: dict[str, list[Rejection]] = defaultdict(list)
        for rejection in self._rejected.values():
            by_name[rejection.name].append(rejection)
        shown = tuple(
            rejection
            for name in sorted(by_name)
            for rejection in sorted(by_name[name], key=lambda rejection: rejection.version or 0)
            if self._matters(rejection)
        )
        self._on_loop(lambda: setattr(self._catalogue, "rejections", shown))

    def _matters(self, rejection: Rejection) -> bool:
        live = self._live.get(rejection.name)
        if live is None or rejection.version is None or rejection.version >= live.version:
            return True
        try:
            return rejection.version in {self._store.pinned(rejection.name), self._store.preview(rejection.name)}
        except BundleNotFound:
            return False

    def _on_loop(self, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(call)

    def _say(self, about: str, sentence: str | None) -> None:
        """Warn of a problem with the store or a model once, until it is solved or another one follows."""
        before = self._said.pop(about, None)
        if sentence is not None:
            self._said[about] = sentence
            if sentence != before:
                _log.warning("the model store has changed", model=about.partition("/")[0] or None, reason=sentence)
