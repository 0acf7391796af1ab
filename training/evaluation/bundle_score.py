"""Score a model on labelled pictures: the one path from a bundle, or an open engine, to its scores."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.contract.preprocessing import Image
from app.engines.engine import Engine
from app.engines.loading import load_model
from app.engines.registry import EngineChoice, EngineName
from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.data.tensors import Tensors, load_tensors
from training.evaluation.score import Scores, predict_all, score
from training.model.preset import Loss
from training.progress import Reporter

_WARM_UP = 512
_ALONE = 50
"""Pictures that are classified one by one, to time a single picture."""


@dataclass(frozen=True)
class Scored:
    """`probabilities` (N, K) are the answers to `tensors`, row by row; the engine took `seconds` for all of them."""

    tensors: Tensors
    probabilities: NDArray[np.float32]
    scores: Scores
    seconds: float

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer (N,) is the true label."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.tensors.targets)


@dataclass(frozen=True)
class ScoredBundle(Scored):
    """A bundle's answers on `engine`; `ms_alone` is the median time of a single picture, None if not timed."""

    engine: EngineName
    ms_alone: float | None


def score_tensors(
    engine: Engine, tensors: Tensors, labels: Sequence[str], *, loss: Loss, title: str, reporter: Reporter
) -> Scored:
    """Classify pictures in batches on an open engine, and score the answers; `title` is shown with the progress."""
    with reporter.task(title, len(tensors.images)) as advance:
        started = time.perf_counter()
        found = predict_all(engine.predict, tensors.images, lambda count: advance(count, ""))
        seconds = time.perf_counter() - started
    return Scored(tensors, found, score(found, tensors.targets, labels, loss=loss), seconds)


def score_bundle(
    bundle: Bundle,
    pictures: Sequence[Picture],
    *,
    engine: EngineChoice,
    on_bad_image: Literal["skip", "fail"] = "fail",
    cache: bool,
    loss: Loss | None = None,
    timed: bool = False,
    reporter: Reporter,
) -> ScoredBundle:
    """Load a bundle, classify pictures through its own preprocessing, score the answers, and close its engine.

    Args:
        pictures: Their labels must be among the bundle's.
        cache: Whether to read and write the cache of preprocessed pictures.
        loss: Which loss to report; that of the bundle's training if None.
        timed: Warm the engine up first, and time pictures one by one afterwards.

    Raises DataError for pictures that cannot be used, a BundleError or EngineUnavailable for the bundle.
    """
    manifest, name = bundle.manifest, f"{bundle.name}:{bundle.version}"
    loaded = load_model(bundle.path, engine=engine)
    try:
        with reporter.task(f"reading pictures for {name}", len(pictures)) as advance:
            tensors = load_tensors(
                pictures,
                manifest.preprocessing,
                manifest.labels,
                on_bad_image=on_bad_image,
                advance=lambda count: advance(count, ""),
                cache=TensorCache.of_user(keeps=cache, say=reporter.say),
            )
        if timed:
            predict_all(loaded.engine.predict, tensors.images[:_WARM_UP])
        scored = score_tensors(
            loaded.engine,
            tensors,
            manifest.labels,
            loss=loss or trained_loss(bundle),
            title=f"classifying with {name} on {loaded.engine.name}",
            reporter=reporter,
        )
        ms_alone = _ms_alone(loaded.engine, tensors.images) if timed else None
    finally:
        loaded.engine.close()
    return ScoredBundle(
        scored.tensors, scored.probabilities, scored.scores, scored.seconds, loaded.engine.name, ms_alone
    )


def trained_loss(bundle: Bundle) -> Loss:
    """Return the loss that the bundle was trained with, by its manifest's record."""
    recipe = bundle.manifest.training.get("recipe")
    return "mse" if isinstance(recipe, dict) and recipe.get("loss") == "mse" else "crossentropy"


def _ms_alone(engine: Engine, images: Image) -> float:
    engine.prepare(1)
    engine.predict(images[:1])
    times = []
    for row in range(min(_ALONE, len(images))):
        started = time.perf_counter()
        engine.predict(images[row : row + 1])
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))
