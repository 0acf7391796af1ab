"""Score probabilities against labels: accuracy, loss, precision and recall by class, the confusion matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image
from training.model.preset import Loss

_BATCH = 256
_BATCH_BYTES = 4 << 20
"""Bytes of the pictures of a batch: a network's arrays for them are some fifty times as large."""
_SMALLEST = 1e-7
"""Keras clips a probability at this before its logarithm; with the same value, both report the same loss."""


@dataclass(frozen=True)
class ClassScore:
    """Precision is None for a class that was never predicted, recall for one that never occurs."""

    precision: float | None
    recall: float | None
    pictures: int


@dataclass(frozen=True)
class Scores:
    """`confusion` (K, K) counts: the row is the true class, the column the predicted one."""

    accuracy: float
    loss: float
    by_class: dict[str, ClassScore]
    confusion: NDArray[np.int64]

    @property
    def macro_recall(self) -> float:
        """The mean recall of the classes that occur: each counts alike, however few pictures it has."""
        return float(np.mean([each.recall for each in self.by_class.values() if each.recall is not None]))

    def as_dict(self) -> dict[str, Any]:
        """Return the scores in JSON's types. Macro figures are unweighted means over the classes that occur; a class
        that is never predicted has precision 0 in them."""
        occurring = [(each.precision or 0.0, each.recall) for each in self.by_class.values() if each.recall is not None]
        precisions = [precision for precision, _ in occurring]
        recalls = [recall for _, recall in occurring]
        return {
            "accuracy": self.accuracy,
            "macro_precision": float(np.mean(precisions)),
            "macro_recall": self.macro_recall,
            "macro_f1": float(np.mean([_f1(precision, recall) for precision, recall in occurring])),
            "worst_recall": min(recalls),
            "loss": self.loss,
            "pictures": int(self.confusion.sum()),
            "by_class": {
                label: {"precision": score.precision, "recall": score.recall, "pictures": score.pictures}
                for label, score in self.by_class.items()
            },
            "confusion": self.confusion.tolist(),
        }


def predict_all(
    predict: Callable[[Image], NDArray[np.float32]], images: Image, advance: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Return the probabilities (N, K) of images (N, H, W, C), a batch at a time."""
    batches = []
    size = max(1, min(_BATCH, _BATCH_BYTES // max(1, images[:1].nbytes)))
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        batches.append(predict(batch))
        if advance is not None:
            advance(len(batch))
    return np.concatenate(batches)


def score(
    probabilities: NDArray[np.float32], targets: NDArray[np.int64], labels: Sequence[str], *, loss: Loss
) -> Scores:
    """Score probabilities (N, K) against the indices (N,) of the true labels; `loss` names the loss to report."""
    classes = len(labels)
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    right = confusion.diagonal()
    occurs, is_predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    by_class = {
        label: ClassScore(
            precision=float(right[index] / is_predicted[index]) if is_predicted[index] else None,
            recall=float(right[index] / occurs[index]) if occurs[index] else None,
            pictures=int(occurs[index]),
        )
        for index, label in enumerate(labels)
    }
    return Scores(float(right.sum() / len(targets)), _loss(probabilities, targets, loss), by_class, confusion)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _loss(probabilities: NDArray[np.float32], targets: NDArray[np.int64], loss: Loss) -> float:
    rows = np.arange(len(targets))
    if loss == "crossentropy":
        return float(-np.log(np.clip(probabilities[rows, targets].astype(np.float64), _SMALLEST, 1.0)).mean())
    errors = probabilities.astype(np.float64)
    errors[rows, targets] -= 1.0
    return float((errors**2).mean())
