"""One of two bundles that are compared: what it makes of the pictures, and what running it costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.contract.preprocessing import Image
from app.engines.engine import Engine
from app.engines.loading import load_model
from app.engines.registry import EngineChoice
from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.data.tensors import load_tensors
from training.evaluation.baseline import learned_pictures
from training.evaluation.calibration.error import debiased_error
from training.evaluation.interval import wilson
from training.evaluation.score import Scores, predict_all, score
from training.progress import Reporter

_WARM_UP = 512
_ALONE = 50
"""Pictures that are classified one by one for the time of one."""


@dataclass(frozen=True)
class Side:
    """Its probabilities (N, K) in the order of its labels, and the indices `targets` (N,) of the true ones.

    `learned` counts pictures that it was trained on. Times are of the engine alone, in milliseconds a picture: one by
    one (the median), and in batches. `model_bytes` is the SavedModel.
    """

    bundle: Bundle
    name: str
    engine: str
    probabilities: NDArray[np.float32]
    targets: NDArray[np.int64]
    scores: Scores
    learned: int
    ms_alone: float
    ms_in_batches: float
    model_bytes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.probabilities.argmax(axis=1) == self.targets)

    def answer(self, row: int) -> dict[str, Any]:
        """Return what it says of one picture."""
        index = int(self.probabilities[row].argmax())
        return {"label": self.bundle.manifest.labels[index], "probability": float(self.probabilities[row, index])}

    def as_dict(self) -> dict[str, Any]:
        """Return its figures in JSON's types."""
        confidence = self.probabilities.max(axis=1).astype(np.float64)
        low, high = wilson(int(self.right.sum()), len(self.right))
        return {
            "name": self.bundle.name,
            "version": self.bundle.version,
            "engine": self.engine,
            "accuracy": self.scores.accuracy,
            "low": low,
            "high": high,
            "nll": self.scores.loss,
            "recall": {label: each.recall for label, each in self.scores.by_class.items()},
            "debiased": debiased_error(confidence, self.right).as_dict(),
            "parameters": self.bundle.manifest.metrics.get("parameters"),
            "model_bytes": self.model_bytes,
            "ms_alone": self.ms_alone,
            "ms_in_batches": self.ms_in_batches,
            "learned": self.learned,
        }


def run_side(
    bundle: Bundle,
    name: str,
    pictures: Sequence[Picture],
    *,
    origin: str,
    engine: EngineChoice,
    cache: bool,
    reporter: Reporter,
) -> Side:
    """Run `bundle`, called `name` to people, on pictures of the data `origin`; all of them must be readable.

    Raises DataError or a BundleError.
    """
    manifest = bundle.manifest
    tensors = load_tensors(
        pictures,
        manifest.preprocessing,
        manifest.labels,
        on_bad_image="fail",
        cache=TensorCache.of_user(keeps=cache, say=reporter.say),
    )
    loaded = load_model(bundle.path, engine=engine)
    try:
        predict_all(loaded.engine.predict, tensors.images[:_WARM_UP])
        with reporter.task(f"{name} on {loaded.engine.name}", len(tensors.images)) as advance:
            started = time.perf_counter()
            found = predict_all(loaded.engine.predict, tensors.images, lambda count: advance(count, ""))
            seconds = time.perf_counter() - started
        ms_alone = _ms_alone(loaded.engine, tensors.images)
    finally:
        loaded.engine.close()
    return Side(
        bundle=bundle,
        name=name,
        engine=loaded.engine.name,
        probabilities=found,
        targets=tensors.targets,
        scores=score(found, tensors.targets, manifest.labels, loss="crossentropy"),
        learned=learned_pictures(bundle, origin, pictures),
        ms_alone=ms_alone,
        ms_in_batches=1000 * seconds / len(found),
        model_bytes=_model_bytes(bundle.path),
    )


def _ms_alone(engine: Engine, images: Image) -> float:
    engine.prepare(1)
    engine.predict(images[:1])
    times = []
    for row in range(min(_ALONE, len(images))):
        started = time.perf_counter()
        engine.predict(images[row : row + 1])
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def _model_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in [path / "saved_model.pb", *(path / "variables").iterdir()])
