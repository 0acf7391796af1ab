"""Pick pictures that a model gets wrong, and pictures whose labels may be wrong, the most confident first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.audit.checks import Thresholds
from training.audit.findings import Finding
from training.audit.labels import find_wrong_labels
from training.report.material import HeldOut


@dataclass(frozen=True)
class Mistake:
    """A picture's row, the predicted label, and the probabilities of the predicted and the true label."""

    row: int
    predicted: str
    probability: float
    of_own_label: float


def worst_mistakes(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str], *, most: int
) -> list[Mistake]:
    """Return the mistakes among probabilities (N, K) and true indices (N,), the most confident first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    most_confident = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:most]
    return [
        Mistake(
            row=int(row),
            predicted=labels[predicted[row]],
            probability=float(probabilities[row, predicted[row]]),
            of_own_label=float(probabilities[row, targets[row]]),
        )
        for row in most_confident
    ]


def suspected_labels(held_out: Sequence[HeldOut], labels: Sequence[str]) -> list[Finding]:
    """Return the labels of held-out pictures that are likely wrong, by the audit's rule and the trained model."""
    if not held_out:
        return []
    pictures = [picture for each in held_out for picture in each.tensors.pictures]
    probabilities = np.concatenate([each.probabilities for each in held_out])
    return list(find_wrong_labels(pictures, labels, probabilities, Thresholds()["wrong-label"]))
