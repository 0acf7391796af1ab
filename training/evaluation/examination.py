"""Evaluate a trained model before it is published: score every split, collect the figures, and judge them.

All figures of held-out pictures are measured on the reopened SavedModel that will be served, not on the network in
memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.engines.engine import Engine
from app.engines.registry import REFERENCE
from app.system.wording import count_of
from training.data.dataset import SPLITS, Split
from training.data.tensors import Tensors
from training.errors import NotGoodEnough
from training.evaluation.acceptance import Requirement, check_recall, check_requirements
from training.evaluation.baseline import score_baseline
from training.evaluation.bundle_score import Scored, score_tensors
from training.evaluation.calibration.figures import before_and_after
from training.evaluation.calibration.temperature import Calibration
from training.evaluation.score import score
from training.fitting.fit import FitResult
from training.model.preset import Loss
from training.progress import Reporter


def score_splits(
    engine: Engine,
    splits: Mapping[Split, Tensors],
    labels: Sequence[str],
    *,
    loss: Loss,
    known: Mapping[Split, NDArray[np.float32]],
    reporter: Reporter,
) -> dict[Split, Scored]:
    """Score every split that has pictures.

    `known` has answers (N, K) that exist already; the engine gives the others.
    """
    scored = {}
    for split, tensors in splits.items():
        if split in known:
            found = score(known[split], tensors.targets, labels, loss=loss)
            scored[split] = Scored(tensors, known[split], found, 0.0)
        else:
            title = f"measuring on {split} pictures"
            scored[split] = score_tensors(engine, tensors, labels, loss=loss, title=title, reporter=reporter)
    return scored


def metrics_of(
    scored: Mapping[Split, Scored], calibration: Calibration, groups: Mapping[str, str], result: FitResult
) -> dict[str, Any]:
    """Return metrics.json's scores, calibration of the held-out splits, and figures of the training.

    `groups` has the group of each picture by id. A split without pictures is None.
    """
    held_out: tuple[Split, ...] = ("validation", "test")
    figures = {
        split: _calibration_of(scored[split], calibration, groups) if split in scored else None for split in held_out
    }
    return {
        "calibration": {**calibration.as_dict(), **figures},
        **{split: scored[split].scores.as_dict() if split in scored else None for split in SPLITS},
        "fit_seconds": round(result.seconds, 3),
        "parameters": result.parameters,
        "precision": result.precision,
        "best_epoch": result.best_epoch,
        "head_accuracy": result.head_accuracy,
        "epochs": [epoch.as_dict() for epoch in result.epochs],
    }


def judge(
    test: Scored,
    requirements: Sequence[Requirement],
    baseline: Bundle | None,
    *,
    max_recall_drop: float,
    cache: bool,
    reporter: Reporter,
) -> None:
    """Raise NotGoodEnough unless the test's scores meet the requirements and no class's recall falls too far below
    the baseline's."""
    on, scores = f"the {count_of(len(test.tensors.pictures), 'test picture')}", test.scores.as_dict()
    try:
        check_requirements(scores, requirements, on=on)
        if baseline is not None:
            before = score_baseline(baseline, test.tensors.pictures, engine=REFERENCE, cache=cache, reporter=reporter)
            check_recall(scores, before, version=baseline.version, max_drop=max_recall_drop, on=on)
    except NotGoodEnough as exc:
        raise NotGoodEnough(f"{exc} Nothing was published.") from exc


def _calibration_of(scored: Scored, calibration: Calibration, groups: Mapping[str, str]) -> dict[str, Any]:
    return before_and_after(
        scored.probabilities,
        scored.tensors.targets,
        temperature=calibration.temperature,
        groups=[groups.get(picture.id) for picture in scored.tensors.pictures],
    )
