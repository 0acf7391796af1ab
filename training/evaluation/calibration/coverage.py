"""Measure accuracy if only confident answers are given: the risk–coverage curve, and a table of thresholds.

A threshold is compared with a picture's confidence, its largest probability.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.calibration.bins import Floats
from training.evaluation.interval import wilson

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
"""Fixed, because a threshold chosen on the pictures that it is measured on looks better than it is."""

_POINTS = 100


def threshold_table(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return, for each threshold, how many of the pictures (N,) are answered at or above it, and how many of those
    rightly, with Wilson's interval; None if none is answered."""
    return [_at(threshold, confidence, right) for threshold in THRESHOLDS]


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the curve of risk, the share of wrong answers, over coverage, the share of pictures that are answered.

    `aurc` is the area under it: the mean over all pictures of the risk if only equally or more confident ones are
    answered. `excess_aurc` is `aurc` minus that of an order in which every mistake comes last (Geifman et al. 2019,
    arXiv:1805.08206).
    """
    descending = np.sort(confidence)[::-1]
    answered = np.searchsorted(-descending, -descending, side="right")  # equally confident pictures together
    wrong = np.cumsum(~right[np.argsort(-confidence, kind="stable")])
    risk = wrong[answered - 1] / answered
    count = len(confidence)
    best = np.maximum(0, np.arange(1, count + 1) - int(right.sum())) / np.arange(1, count + 1)
    aurc = float(risk.mean())
    rows = np.unique(answered[np.ceil(count * np.arange(1, _POINTS + 1) / _POINTS).astype(int) - 1]) - 1
    return {
        "aurc": aurc,
        "excess_aurc": aurc - float(best.mean()),
        "points": [
            {"coverage": (row + 1) / count, "threshold": float(descending[row]), "risk": float(risk[row])}
            for row in rows.tolist()
        ],
    }


def _at(threshold: float, confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    is_answered = confidence >= threshold
    answered, is_right = int(is_answered.sum()), int(right[is_answered].sum())
    low, high = wilson(is_right, answered) if answered else (None, None)
    return {
        "threshold": threshold,
        "answered": answered,
        "right": is_right,
        "coverage": answered / len(confidence),
        "accuracy": is_right / answered if answered else None,
        "low": low,
        "high": high,
    }
