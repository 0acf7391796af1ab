"""One of two compared bundles: its answers to the pictures, and its cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.engines.registry import EngineChoice
from training.data.dataset import Picture
from training.evaluation.bundle_score import ScoredBundle, score_bundle
from training.evaluation.calibration.error import debiased_error
from training.evaluation.interval import wilson
from training.evaluation.recorded_split import learned_pictures
from training.progress import Reporter


@dataclass(frozen=True)
class Side:
    """The bundle's answers. `name` is shown to people; the bundle was trained on `learned` of the pictures.

    `model_bytes` is the size of the SavedModel.
    """

    bundle: Bundle
    name: str
    scored: ScoredBundle
    learned: int
    model_bytes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.scored.right

    @property
    def probabilities(self) -> NDArray[np.float32]:
        return self.scored.probabilities

    def answer(self, row: int) -> dict[str, Any]:
        """Return its answer to one picture, in JSON's types."""
        index = int(self.probabilities[row].argmax())
        return {"label": self.bundle.manifest.labels[index], "probability": float(self.probabilities[row, index])}

    def as_dict(self) -> dict[str, Any]:
        """Return its figures in JSON's types. Times are of the engine alone, in milliseconds a picture."""
        confidence = self.probabilities.max(axis=1).astype(np.float64)
        low, high = wilson(int(self.right.sum()), len(self.right))
        return {
            "name": self.bundle.name,
            "version": self.bundle.version,
            "engine": self.scored.engine,
            "accuracy": self.scored.scores.accuracy,
            "low": low,
            "high": high,
            "macro_recall": self.scored.scores.macro_recall,
            "nll": self.scored.scores.loss,
            "recall": {label: each.recall for label, each in self.scored.scores.by_class.items()},
            "debiased": debiased_error(confidence, self.right).as_dict(),
            "parameters": self.bundle.manifest.metrics.get("parameters"),
            "model_bytes": self.model_bytes,
            "ms_alone": self.scored.ms_alone,
            "ms_in_batches": 1000 * self.scored.seconds / len(self.right),
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
    """Run `bundle`, shown as `name`, on pictures of the data `origin`; all of them must be readable.

    Raises DataError or a BundleError.
    """
    scored = score_bundle(
        bundle, pictures, engine=engine, cache=cache, loss="crossentropy", timed=True, reporter=reporter
    )
    return Side(bundle, name, scored, learned_pictures(bundle, origin, pictures), _model_bytes(bundle.path))


def _model_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in [path / "saved_model.pb", *(path / "variables").iterdir()])
