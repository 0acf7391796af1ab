"""Choose the probability above which answers reach a requested precision, and measure the share of such answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Split
from training.evaluation.bundle_score import Scored
from training.evaluation.interval import wilson

_DIGITS = 4
"""Digits of the minimum, as it is printed and recorded."""


@dataclass(frozen=True)
class Answered:
    """How many `pictures` there are, how many have a probability of at least the minimum, and how many of those are
    `right`."""

    pictures: int
    answered: int
    right: int

    @classmethod
    def of(cls, scored: Scored, minimum: float) -> Self:
        is_sure = scored.probabilities.max(axis=1) >= np.float32(minimum)
        return cls(len(is_sure), int(is_sure.sum()), int((scored.right & is_sure).sum()))

    def as_dict(self) -> dict[str, Any]:
        coverage, precision = self.answered / self.pictures, self.right / self.answered if self.answered else None
        return {"pictures": self.pictures, "answered": self.answered, "coverage": coverage, "precision": precision}


@dataclass(frozen=True)
class Sureness:
    """The `minimum` probability above which answers reach `min_precision`, and its effect on each held-out split.

    It is chosen on the validation pictures, and None if no minimum is enough.
    """

    min_precision: float
    minimum: float | None
    held_out: Mapping[Split, Answered]

    @classmethod
    def of(cls, scored: Mapping[Split, Scored], min_precision: float) -> Self:
        """Choose the lowest minimum at or above which the requested share of validation pictures is right."""
        validation = scored["validation"]
        minimum = least_minimum(validation.probabilities.max(axis=1), validation.right, min_precision)
        splits: tuple[Split, ...] = ("validation", "test")
        found = (
            {} if minimum is None else {each: Answered.of(scored[each], minimum) for each in splits if each in scored}
        )
        return cls(min_precision, minimum, found)

    def sentence(self) -> str:
        if self.minimum is None:
            return (
                "no answer will be called unsure: even of the most confident validation answers, fewer than "
                f"{self.min_precision:.2%} are right. Ask for a lower --min-precision, or train a better model"
            )
        parts = []
        for split, found in self.held_out.items():
            low, high = wilson(found.right, found.answered)
            parts.append(
                f"{found.answered / found.pictures:.1%} of {found.pictures:,} {split} pictures are not unsure, and "
                f"{found.right / max(1, found.answered):.2%} of those are right (95 % interval {low:.1%} to {high:.1%})"
            )
        return f"unsure below a probability of {self.minimum:g}: {'; '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "min_precision": self.min_precision,
            "min_probability": self.minimum,
            **{split: found.as_dict() for split, found in self.held_out.items()},
        }


def least_minimum(confidence: NDArray[np.float32], right: NDArray[np.bool_], min_precision: float) -> float | None:
    """Return the least of the answers' probabilities, rounded, at and above which that share of the answers is right.

    `confidence` (N,) has the probability of each answer, `right` (N,) whether it is right. Returns None if no minimum
    is enough.
    """
    order = np.argsort(-confidence, kind="stable")
    falling, hits = confidence[order].astype(np.float64), np.cumsum(right[order])
    for minimum in np.unique(np.round(falling, _DIGITS)):
        answered = int(np.searchsorted(-falling, -np.float64(np.float32(minimum)), side="right"))
        if answered and hits[answered - 1] >= min_precision * answered:
            return float(minimum)
    return None
