"""Hold the live version of each model, and swap it between two batches when another version is ready. A model may have
another version in preview, which answers the requests that name it.

It loads nothing: `app.serving.versions` does, at the start and for `app.serving.store_watcher`. Call its methods on the
event loop only.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import structlog

from app.errors import ModelNotFound, ModelNotNamed
from app.metrics import Metrics
from app.serving.admission import Admission
from app.serving.classifier import Classifier, Limits
from app.serving.tuning import Tuning
from app.serving.versions import LoadedStore, Rejection, TunedModel
from app.waiting import wait_all

_log = structlog.stdlib.get_logger(__name__)


class Catalogue:
    """The live models by name; an async context manager that closes them all."""

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
        retire_grace_s: float,
    ) -> None:
        self.admission = admission
        self.rejections = loaded.rejections
        self.stopping = False
        self._limits = limits
        self._metrics = metrics
        self._shutdown_grace_s = shutdown_grace_s
        self._retire_grace_s = retire_grace_s
        self._decode_pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._give_up = give_up
        self._classifiers: dict[str, Classifier] = {}
        self._previews: dict[str, Classifier] = {}
        self._ending: dict[asyncio.Task[None], Classifier] = {}
        self._set_default = default
        self._default: str | None = None
        admission.relieve = self._run_waiting
        for rejection in loaded.rejections:
            self._count(rejection.name, rejection.version, rejection.code)
        for model in loaded.models:
            self._take_live(model)
        if default is not None:
            self.get(default)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish the accepted pictures, within the grace, and free the models."""
        self.stopping = True
        for classifier in self.answering:
            self._begin_to_end(classifier, self._shutdown_grace_s)
        await wait_all(self._ending, timeout_s=self._shutdown_grace_s)
        for classifier in self._ending.values():  # replaced ones may have had a longer grace
            classifier.close()
        await wait_all(self._ending)
        self._decode_pool.shutdown(wait=False, cancel_futures=True)

    def _run_waiting(self) -> None:
        for model in self.answering:
            model.run_waiting()

    @property
    def models(self) -> list[Classifier]:
        """The live models, sorted by name."""
        return [self._classifiers[name] for name in sorted(self._classifiers)]

    @property
    def answering(self) -> list[Classifier]:
        """The versions that take requests: the live ones, and those in preview."""
        return [*self._classifiers.values(), *self._previews.values()]

    def in_preview(self, name: str) -> Classifier | None:
        """Return the version of a model that is in preview."""
        return self._previews.get(name)

    def get(self, name: str | None = None, version: str | None = None) -> Classifier:
        """Return the model of that name, or the default one; with `version`, only if that one is live or in preview.

        Raises ModelNotFound or ModelNotNamed.

        Hand over pictures in the same iteration of the event loop: in the next one, another version may be live.
        """
        if name is None:
            if self._default is None:
                raise ModelNotNamed(self._classifiers)
            name = self._default
        classifier = self._classifiers.get(name)
        if classifier is None:
            raise ModelNotFound(f"There is no model '{name}' here. Served: {', '.join(sorted(self._classifiers))}.")
        if version is None or version == classifier.version:
            return classifier
        preview = self._previews.get(name)
        if preview is not None and version == preview.version:
            return preview
        raise ModelNotFound(
            f"Version '{version}' of '{name}' is not live here; version {classifier.version} is. Ask for that version, "
            "or name none."
        )

    async def replace(self, model: TunedModel) -> bool:
        """Make this version live, and return True; return False if the service is stopping.

        The version before it still answers the pictures that it has accepted; a task then frees it.
        """
        if self.stopping:
            return False
        old = self._classifiers.get(model.name)
        self._take_live(model)
        if old is not None:
            self._begin_to_end(old, self._retire_grace_s)
        return True

    async def preview(self, model: TunedModel) -> bool:
        """Put this version into preview, instead of the one before it; return False if the service is stopping."""
        if self.stopping:
            return False
        classifier = self._classifier(model)
        await self.end_preview(model.name)
        self._previews[model.name] = classifier
        self._count(model.name, model.version, "preview")
        return True

    async def end_preview(self, name: str) -> None:
        """Take the version in preview, if there is one, out of service."""
        old = self._previews.pop(name, None)
        if old is not None:
            self._begin_to_end(old, self._retire_grace_s)

    def may_remove(self, name: str) -> bool:
        """Return whether requests that name no model would be answered as before without this model."""
        return name != self._set_default and len(self._classifiers) > 1

    async def remove(self, name: str) -> bool:
        """Stop serving this model; return whether it is not served any more."""
        if name in self._classifiers:
            if self.stopping or not self.may_remove(name):
                return False
            old = self._classifiers.pop(name)
            self._say_in_metrics(old, 0.0)
            self._look_at_what_is_live()
            self._begin_to_end(old, self._retire_grace_s)
            await self.end_preview(name)
        return True

    def count_rejection(self, rejection: Rejection) -> None:
        self._count(rejection.name, rejection.version, rejection.code)

    def _take_live(self, model: TunedModel) -> None:
        classifier = self._classifier(model)
        before = self._classifiers.get(model.name)
        self._classifiers[model.name] = classifier
        self._look_at_what_is_live()
        if before is not None:
            self._say_in_metrics(before, 0.0)
        self._say_in_metrics(classifier, 1.0)
        self._count(model.name, model.version, "live")

    def _classifier(self, model: TunedModel) -> Classifier:
        return Classifier(
            model.loaded,
            model.tuning,
            decode_pool=self._decode_pool,
            limits=self._limits,
            admission=self.admission,
            metrics=self._metrics,
            give_up=self._give_up,
            outputs=model.outputs,
        )

    def _look_at_what_is_live(self) -> None:
        self._default = self._set_default or (next(iter(self._classifiers)) if len(self._classifiers) == 1 else None)
        self.admission.enough = max(_enough(each.tuning) for each in self._classifiers.values())

    def _say_in_metrics(self, classifier: Classifier, value: float) -> None:
        manifest, loaded = classifier.manifest, classifier.loaded
        self._metrics.model_info(manifest.name, str(manifest.version), loaded.engine.name, loaded.precision).set(value)

    def _count(self, name: str, version: int | None, outcome: str) -> None:
        self._metrics.model_load(name, "" if version is None else str(version), outcome).add()

    def _begin_to_end(self, classifier: Classifier, grace_s: float) -> None:
        task = asyncio.get_running_loop().create_task(classifier.aclose(grace_s))
        self._ending[task] = classifier
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        manifest = self._ending.pop(task).manifest
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = str(error)
            _log.error("a model could not be freed", model=manifest.name, version=manifest.version, reason=reason)
        elif not self.stopping:
            _log.info("model freed", model=manifest.name, version=manifest.version)


def _enough(tuning: Tuning) -> int:
    """Return how many pictures keep a model fully busy: one batch, and another while batches run in a thread."""
    largest = tuning.plan.sizes[-1]
    return largest if tuning.on_event_loop else 2 * largest
