"""Examine what a training made, before it is published: score it, say what is wrong with the run, and judge it.

All figures are those of the reopened SavedModel that will be served, not of the network in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.engines.engine import Engine
from app.engines.registry import REFERENCE
from training.audit.inspection import Inspection
from training.bundling.export import Measured
from training.data.dataset import Split
from training.data.split import Assignment
from training.data.tensors import Tensors
from training.errors import NotGoodEnough
from training.evaluation.acceptance import check_recall, check_requirements
from training.evaluation.baseline import score_baseline
from training.evaluation.bundle_score import score_tensors
from training.evaluation.calibration.figures import before_and_after
from training.evaluation.calibration.temperature import Calibration
from training.evaluation.diagnosis import Answers, Facts, Finding, diagnose
from training.fitting.fit import FitResult
from training.options import FitOptions
from training.progress import Reporter


@dataclass(frozen=True)
class Splits:
    """The pictures of each split as tensors, None where it has none."""

    train: Tensors
    validation: Tensors | None
    test: Tensors | None

    def by_name(self) -> dict[Split, Tensors | None]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Trained:
    """A training that has ended: what it was to do, on which pictures, and how it went."""

    options: FitOptions
    assignment: Assignment
    inspection: Inspection
    groups: Mapping[str, str]
    splits: Splits
    result: FitResult
    calibration: Calibration


def measure(trained: Trained, engine: Engine, reporter: Reporter) -> Measured:
    """Return the figures of every split."""
    labels, loss = trained.assignment.labels, trained.options.preset.recipe.loss
    result, calibration = trained.result, trained.calibration
    metrics: dict[str, Any] = {"calibration": calibration.as_dict() | {"validation": None, "test": None}}
    probabilities: dict[Split, NDArray[np.float32]] = {}
    for split, tensors in trained.splits.by_name().items():
        metrics[split] = None
        if tensors is not None:
            scored = score_tensors(
                engine, tensors, labels, loss=loss, title=f"measuring on {split} pictures", reporter=reporter
            )
            found = probabilities[split] = scored.probabilities
            metrics[split] = scored.scores.as_dict()
            if split != "train":
                metrics["calibration"][split] = before_and_after(
                    found,
                    tensors.targets,
                    temperature=calibration.temperature,
                    groups=[trained.groups.get(picture.id) for picture in tensors.pictures],
                )
    metrics |= {
        "fit_seconds": round(result.seconds, 3),
        "parameters": result.parameters,
        "precision": result.precision,
        "best_epoch": result.best_epoch,
        "epochs": [epoch.as_dict() for epoch in result.epochs],
    }
    return Measured(metrics, probabilities)


def find_troubles(trained: Trained, measured: Measured) -> list[Finding]:
    """Return what is wrong with the run."""
    metrics = measured.metrics
    return diagnose(
        Facts(
            options=trained.options,
            counts=trained.assignment.counts(),
            epochs=metrics["epochs"],
            scores={split: metrics[split] for split in trained.splits.by_name()},
            audit=trained.inspection.record,
            answers=_held_out_answers(trained.splits, measured.probabilities),
        )
    )


def judge(trained: Trained, measured: Measured, baseline: Bundle | None, reporter: Reporter) -> None:
    """Raise NotGoodEnough, before anything is published, for what the options do not let pass."""
    options, test = trained.options, trained.splits.test
    if test is None:
        return
    on = f"the {len(test.pictures):,} test pictures"
    scores = measured.metrics["test"]
    try:
        check_requirements(scores, options.requirements, on=on)
        if baseline is not None:
            before = score_baseline(baseline, test.pictures, engine=REFERENCE, cache=options.cache, reporter=reporter)
            check_recall(scores, before, version=baseline.version, max_drop=options.max_recall_drop, on=on)
    except NotGoodEnough as exc:
        raise NotGoodEnough(f"{exc} Nothing was published.") from exc


def _held_out_answers(splits: Splits, probabilities: Mapping[Split, NDArray[np.float32]]) -> Answers | None:
    held_out = [
        (probabilities[split], tensors.targets)
        for split, tensors in splits.by_name().items()
        if split != "train" and tensors is not None
    ]
    if not held_out:
        return None
    return Answers(
        confidence=np.concatenate([found.max(axis=1) for found, _ in held_out]),
        right=np.concatenate([found.argmax(axis=1) == targets for found, targets in held_out]),
    )
