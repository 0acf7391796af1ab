"""Which versions are live: the newest of every model in the store that passes its check."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from app.contract.preprocessing import use_one_thread_per_picture
from app.contract.store import ModelStore
from app.engines.engine import EngineChoice, PrecisionChoice
from app.engines.loading import LoadedModel, load_model
from app.errors import BundleError, BundleNotFound, ModelNotFound, ModelNotNamed
from app.metrics import Metrics
from app.serving.admission import Admission
from app.serving.classifier import Classifier, Limits
from app.serving.tuning import Tuning, TuningOptions, tune

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A version that was not taken live, with the reason's stable code."""

    name: str
    version: int
    code: str


@dataclass(frozen=True)
class TunedModel:
    """A model that is ready to serve, and how it is run."""

    loaded: LoadedModel
    tuning: Tuning


@dataclass(frozen=True)
class LoadedStore:
    """The models of a store, loaded, proven and tuned, and the versions that were refused."""

    models: tuple[TunedModel, ...]
    refusals: tuple[Refusal, ...]


def load_store(
    store: ModelStore,
    *,
    engine: EngineChoice,
    threads: int,
    precision: PrecisionChoice = "f32",
    tuning: TuningOptions = TuningOptions(),  # noqa: B008 - frozen
    only: str | None = None,
) -> LoadedStore:
    """Load the newest version of every model that passes its check, or of the model `only`.

    A version that fails is logged, and the one before it serves. Raises the newest version's BundleError where a model
    has none that passes, BundleNotFound where the store is empty, EngineUnavailable where the engine is.
    """
    use_one_thread_per_picture()
    names = [only] if only else store.names()
    if not names:
        raise BundleNotFound(
            f"The model store {store.root} holds no model. Train one: python -m training fit --data PATH --name NAME."
        )
    refusals: list[Refusal] = []

    def load(path: Path) -> TunedModel:
        loaded = load_model(path, engine=engine, threads=threads, precision=precision)
        try:
            return TunedModel(loaded, tune(loaded, tuning))
        except BaseException:
            loaded.engine.close()
            raise

    models = [_load_newest(store, name, refusals, load) for name in names]
    return LoadedStore(tuple(models), tuple(refusals))


def _load_newest(
    store: ModelStore, name: str, refusals: list[Refusal], load: Callable[[Path], TunedModel]
) -> TunedModel:
    store.newest(name)  # says which models there are, where this one is not
    refused: dict[int, BundleError] = {}
    for version in reversed(store.versions(name)):
        try:
            model = load(store.path(name, version))
        except BundleError as exc:
            refused[version] = exc
            continue
        for refused_version, error in refused.items():
            refusals.append(Refusal(name, refused_version, error.code))
            _log.error("version refused", model=name, version=refused_version, code=error.code, reason=str(error))
        loaded = model.loaded
        for refusal in loaded.refusals:
            _log.warning("engine refused", model=name, version=version, code=refusal.code, reason=str(refusal))
        _log.info("model live", model=name, version=version, engine=loaded.engine.name, reason=loaded.reason)
        return model
    raise next(iter(refused.values()))


class Catalogue:
    """The live models by name; an async context manager that ends them all."""

    def __init__(
        self,
        loaded: LoadedStore,
        *,
        default: str | None,
        admission: Admission,
        limits: Limits,
        metrics: Metrics,
        give_up: Callable[[], None],
        decode_threads: int,
        shutdown_grace_s: float,
    ) -> None:
        self.admission = admission
        self.refusals = loaded.refusals
        self.stopping = False
        self._shutdown_grace_s = shutdown_grace_s
        self._decode_pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._classifiers = {
            model.loaded.bundle.name: Classifier(
                model.loaded,
                model.tuning,
                decode_pool=self._decode_pool,
                limits=limits,
                admission=admission,
                metrics=metrics,
                give_up=give_up,
            )
            for model in loaded.models
        }
        admission.relieve = self._run_waiting
        admission.largest_batch = max(
            (model.tuning.plan.sizes[-1] for model in loaded.models if model.tuning.on_event_loop), default=1
        )
        self._default = default or (next(iter(self._classifiers)) if len(self._classifiers) == 1 else None)
        if default is not None:
            self.get(default)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish what was accepted, within the grace, and free the models."""
        self.stopping = True
        await asyncio.gather(*(model.aclose(self._shutdown_grace_s) for model in self._classifiers.values()))
        self._decode_pool.shutdown(wait=False, cancel_futures=True)

    def _run_waiting(self) -> None:
        for model in self._classifiers.values():
            model.run_waiting()

    @property
    def models(self) -> list[Classifier]:
        """The live models, sorted by name."""
        return [self._classifiers[name] for name in sorted(self._classifiers)]

    def get(self, name: str | None = None) -> Classifier:
        """Return the model of that name, or the default one. Raises ModelNotFound or ModelNotNamed."""
        if name is None:
            if self._default is None:
                raise ModelNotNamed(
                    f"Several models are served: {', '.join(sorted(self._classifiers))}. Name one with ?model=, "
                    "or set IMAGECLASS_MODEL."
                )
            name = self._default
        classifier = self._classifiers.get(name)
        if classifier is None:
            raise ModelNotFound(f"There is no model '{name}' here. Served: {', '.join(sorted(self._classifiers))}.")
        return classifier
