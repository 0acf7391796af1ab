"""Load, check and tune versions of the store's models. It knows nothing of requests, or of live versions.

At the start a model is served in its pinned version, else in its newest that is not held back; if that one fails its
check, in the newest that passes. A service that answers with another version, and reports it, is better than none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.contract.bundle import FEATURES, open_bundle
from app.contract.fingerprint import Fingerprint, fingerprint_of
from app.contract.judgement import rate_of_false_alarms
from app.contract.preprocessing import use_one_thread_per_picture
from app.contract.store import ModelStore
from app.engines.engine import PrecisionChoice
from app.engines.loading import LoadedModel, load_model
from app.engines.proof import proven_outputs
from app.engines.registry import EngineChoice
from app.errors import BundleError, BundleNotFound
from app.serving.tuning import Tuning, TuningOptions, tune
from app.system.invocation import command_line

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Rejection:
    """A version that was rejected, with the reason's stable code. The version is None if the pin names no version.

    `fingerprint` is that of the rejected files, None if there were none.
    """

    name: str
    version: int | None
    code: str
    reason: str
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True)
class TunedModel:
    """A model that is ready to serve, its tuning, and the fingerprint of its files before the load.

    `outputs` are the outputs besides the probabilities that every answer needs; they are proven already.
    """

    loaded: LoadedModel
    tuning: Tuning
    fingerprint: Fingerprint | None = None
    outputs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.loaded.bundle.name

    @property
    def version(self) -> int:
        return self.loaded.bundle.version


@dataclass(frozen=True)
class LoadedStore:
    """The loaded, checked and tuned models of a store, and the rejected versions."""

    models: tuple[TunedModel, ...]
    rejections: tuple[Rejection, ...]


@dataclass(frozen=True)
class Loader:
    """Loads versions by the settings. Safe to use in any thread, one load at a time."""

    store: ModelStore
    engine: EngineChoice
    threads: int
    precision: PrecisionChoice = "f32"
    false_alarms: float | None = None
    tuning: TuningOptions = TuningOptions()  # noqa: RUF009 - frozen

    def load(
        self, name: str, version: int, *, like: TunedModel | None = None, pause: Callable[[], None] | None = None
    ) -> TunedModel:
        """Load, check and tune a version; take over the tuning of `like` if both are networks of one kind.

        A process that answers requests meanwhile gives `pause`, which is called between the steps. Raises a BundleError
        or EngineUnavailable with the reason.
        """
        use_one_thread_per_picture()
        path = self.store.path(name, version)
        try:
            fingerprint = fingerprint_of(path)
            loaded = load_model(
                path,
                engine=self.engine,
                threads=self.threads,
                precision=self.precision,
                pause=pause or _no_pause,
            )
        except OSError as exc:  # removed or made unreadable while it was read
            raise BundleNotFound(f"{path} cannot be read: {exc.strerror}.") from exc
        try:
            known = like.tuning if like is not None and _same_kind(loaded, like.loaded) else None
            tuning = tune(loaded, self.tuning, known=known, busy=pause is not None, pause=pause or _no_pause)
            return TunedModel(loaded, tuning, fingerprint, self._proven_outputs(loaded))
        except BaseException:
            loaded.engine.close()
            raise

    def _proven_outputs(self, loaded: LoadedModel) -> tuple[str, ...]:
        bundle = loaded.bundle
        if rate_of_false_alarms(bundle, self.false_alarms) is not None:
            proven_outputs(bundle, loaded.engine)
            return (FEATURES,)
        if self.false_alarms is not None:
            _log.warning(
                "unfamiliar pictures are not marked: the bundle has no trust.npz, or too few held-out pictures for "
                "the rate; train it again, or raise IMAGECLASS_FALSE_ALARMS",
                model=bundle.name,
                version=bundle.version,
                held_out=0 if bundle.trust is None else bundle.trust.held_out,
            )
        return ()

    def is_still(self, model: TunedModel) -> bool:
        """Return whether the model's folder in the store still holds the bundle that it was loaded from.

        Raises a BundleError if the bundle there is damaged.
        """
        return open_bundle(self.store.path(model.name, model.version)).manifest == model.loaded.bundle.manifest


def load_store(loader: Loader, *, only: str | None = None, required: str | None = None) -> LoadedStore:
    """Load every model of the store, or the model `only`, each in the version that is to be served.

    A version that fails is logged, and the newest that passes is served. A model without any is left out if another
    model has one. If there is nothing to serve, or the model `required` cannot be served, raises the BundleError of the
    first version tried. Raises BundleNotFound if the store is empty, and EngineUnavailable if the engine cannot be
    used.
    """
    names = [only] if only else _to_serve(loader.store, required)
    if not names:
        raise BundleNotFound(
            f"The model store {loader.store.root} holds no model. "
            f"Train one: {command_line('training', 'fit', '--data', 'PATH', '--name', 'NAME')}"
        )
    rejections: list[Rejection] = []
    models, without = [], {}
    for name in names:
        try:
            models.append(_load_served(loader, name, rejections))
        except BundleError as exc:
            without[name] = exc
    for name, error in without.items():
        if not models or name == required:
            raise error
        _log.error("model not served", model=name, reason=str(error))
    return LoadedStore(tuple(models), tuple(rejections))


def _to_serve(store: ModelStore, required: str | None) -> list[str]:
    """Return the models that are not marked as unloaded; all of them, if none would be left."""
    names = store.names()
    return [name for name in names if name == required or not store.is_unloaded(name)] or names


def _load_served(loader: Loader, name: str, rejections: list[Rejection]) -> TunedModel:
    """Return the pinned version, else the newest that passes and is not held back; add failed ones to `rejections`."""
    store = loader.store
    store.newest(name)  # if the model is missing, its error names those that exist
    rejected: dict[int | None, BundleError] = {}
    pinned = None
    try:
        pinned = store.pinned(name)
    except BundleNotFound as exc:
        rejected[None] = exc
    order = store.serving_order(name, pinned)
    if not order:
        raise store.all_held_back(name)
    found = None
    for version in order:
        fingerprint = _fingerprint(loader, name, version)
        try:
            found = loader.load(name, version)
            break
        except BundleError as exc:
            rejected[version] = exc
            rejections.append(Rejection(name, version, exc.code, str(exc), fingerprint))
    if None in rejected:
        rejections.append(Rejection(name, None, rejected[None].code, str(rejected[None])))
    if found is None:
        raise next(error for version, error in rejected.items() if version is not None)
    for rejected_version, error in rejected.items():
        _log.error("version refused", model=name, version=rejected_version, code=error.code, reason=str(error))
    if None in rejected or pinned not in {None, found.version}:
        _log.error("the pin is not followed", model=name, pinned=pinned, served=found.version)
    say_what_is_live(found)
    return found


def say_what_is_live(model: TunedModel, **more: object) -> None:
    """Log that a version is live, and why it runs on its engine."""
    loaded = model.loaded
    for rejection in loaded.rejections:
        _log.warning(
            "engine refused", model=model.name, version=model.version, code=rejection.code, reason=str(rejection)
        )
    _log.info(
        "model live", model=model.name, version=model.version, engine=loaded.engine.name, reason=loaded.reason, **more
    )


def _no_pause() -> None:
    """Do nothing: nobody is served during the load."""


def _fingerprint(loader: Loader, name: str, version: int) -> Fingerprint | None:
    try:
        return fingerprint_of(loader.store.path(name, version))
    except OSError:
        return None


def _same_kind(one: LoadedModel, other: LoadedModel) -> bool:
    """Return whether two models take equally long: same input, parameter count, engine, precision and threads."""
    first, second = one.bundle.manifest, other.bundle.manifest
    return (
        first.signature == second.signature
        and first.preprocessing == second.preprocessing
        and first.metrics.get("parameters") == second.metrics.get("parameters") is not None
        and (one.engine.name, one.precision, one.threads) == (other.engine.name, other.precision, other.threads)
    )
