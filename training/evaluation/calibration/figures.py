"""Compute all calibration figures of one set of pictures, in the form of metrics.json.

It knows nothing of networks or bundles.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.calibration.bins import Bins, Floats
from training.evaluation.calibration.coverage import risk_coverage, threshold_table
from training.evaluation.calibration.error import BINS, debiased_error, plain_error
from training.evaluation.calibration.temperature import uncalibrated

_SMALLEST = float(np.finfo(np.float32).tiny)
"""Below it a float32 probability is 0 or loses digits: its logarithm would be infinite or inaccurate."""
_BAND_DRAWS = 1000


def before_and_after(
    probabilities: NDArray[np.float32],
    targets: NDArray[np.int64],
    *,
    temperature: float,
    groups: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Return the figures "before" the temperature, None if it is 1, and "after", of the served probabilities.

    `probabilities` (N, K) are the served ones, `targets` (N,) the indices of the true labels, `groups` (N) the group of
    each picture, None for none.
    """
    before = None
    if temperature != 1:
        before = figures(uncalibrated(probabilities, temperature), targets, groups)
    return {"before": before, "after": figures(probabilities.astype(np.float64), targets, groups)}


def figures(
    probabilities: Floats, targets: NDArray[np.int64], groups: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """Return the figures of probabilities (N, K) in JSON's types; docs/explanation/calibration.md explains each."""
    rows = np.arange(len(targets))
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    of_true = probabilities[rows, targets]
    squares = (probabilities**2).sum(axis=1) - 2 * of_true + 1
    return {
        "pictures": len(targets),
        "accuracy": float(right.mean()),
        "confidence": float(confidence.mean()),
        "nll": float(-np.log(np.clip(of_true, _SMALLEST, 1.0)).mean()),
        "brier": float(squares.mean()),
        "debiased": debiased_error(confidence, right).as_dict(),
        "ece": plain_error(confidence, right).as_dict(),
        "reliability": _reliability(confidence, right),
        "risk_coverage": risk_coverage(confidence, right),
        "thresholds": threshold_table(confidence, right),
        "groups": _by_group(confidence, right, groups) if groups is not None and any(groups) else None,
    }


def _reliability(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    bins = Bins.of_equal_mass(confidence, right, count=BINS)
    return [
        {"pictures": row["pictures"], "from": low, "to": high, **row}
        for low, high, row in zip(bins.low.tolist(), bins.high.tolist(), _beside_bands(bins), strict=True)
    ]


def _by_group(confidence: Floats, right: NDArray[np.bool_], groups: Sequence[str | None]) -> list[dict[str, Any]]:
    names = sorted({group for group in groups if group})
    of = np.array([group or "" for group in groups])
    bins = Bins.of([np.flatnonzero(of == name) for name in names], confidence, right)
    rows = [{"group": name, **row} for name, row in zip(names, _beside_bands(bins), strict=True)]
    return sorted(rows, key=lambda row: row["accuracy"] - row["confidence"])


def _beside_bands(bins: Bins) -> list[dict[str, Any]]:
    """Return each bin's figures; a calibrated model's accuracy is between `low` and `high` 95 % of the time."""
    drawn, _ = bins.draw(np.random.default_rng(0), _BAND_DRAWS)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    columns = (bins.pictures, bins.confidence, bins.accuracy, low, high)
    names = ("pictures", "confidence", "accuracy", "low", "high")
    return [dict(zip(names, row, strict=True)) for row in zip(*(column.tolist() for column in columns), strict=True)]
