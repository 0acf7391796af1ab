"""Check a model before it is published: required figures, and recall by class against the baseline.

It compares scores of `training.evaluation.score`, and knows nothing of bundles, engines or the store.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from training.errors import NotGoodEnough, OptionError

Against = int | Literal["live"]

FIGURES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "worst_recall", "loss")
"""The scores that can be required. The loss must be at most the required value, the others at least."""

_ROUNDING = 1e-9
_SHOWN = 5


@dataclass(frozen=True)
class Requirement:
    """A score's required value."""

    figure: str
    value: float

    def is_met_by(self, found: float) -> bool:
        return found <= self.value if self.figure == "loss" else found >= self.value


def parse_requirement(text: str) -> Requirement:
    """Parse a requirement such as "accuracy=0.98". Raises OptionError."""
    figure, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if figure not in FIGURES or not math.isfinite(value):
        raise OptionError(
            f"--require {text} is not a metric and a number, such as accuracy=0.98. Metrics: {', '.join(FIGURES)}."
        )
    if figure != "loss" and not 0 <= value <= 1:
        raise OptionError(f"--require {text} is not between 0 and 1: write 98 % as {figure}=0.98.")
    return Requirement(figure, value)


def parse_against(text: str) -> Against:
    """Parse "live" or the number of a version. Raises OptionError."""
    if text == "live":
        return "live"
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--against {text} is neither a version number nor live.")
    return int(text)


def check_requirements(scores: Mapping[str, Any], requirements: Sequence[Requirement], *, on: str) -> None:
    """Raise NotGoodEnough, with required and actual values, unless the scores on the pictures `on` are sufficient."""
    missed = [
        f"{each.figure} is {_shown(each.figure, scores[each.figure])}, and at "
        f"{'most' if each.figure == 'loss' else 'least'} {_shown(each.figure, each.value)} is required"
        for each in requirements
        if not each.is_met_by(scores[each.figure])
    ]
    if missed:
        raise NotGoodEnough(f"On {on}, {'; '.join(missed)}.")


def check_recall(
    scores: Mapping[str, Any], before: Mapping[str, Any], *, version: int, max_drop: float, on: str
) -> None:
    """Raise NotGoodEnough if the recall of a class is lower than `before` by more than `max_drop`.

    Both are scores on the same pictures, `before` those of `version`. A new class cannot fail; a class that is missing
    now has recall 0.
    """
    worse = []
    for label, old in before["by_class"].items():
        if old["recall"] is None:
            continue
        found = scores["by_class"].get(label)
        recall = 0.0 if found is None or found["recall"] is None else found["recall"]
        if old["recall"] - recall > max_drop + _ROUNDING:
            worse.append((recall - old["recall"], f"'{label}' from {old['recall']:.2%} to {recall:.2%}"))
    if worse:
        named = ", ".join(sentence for _, sentence in sorted(worse)[:_SHOWN])
        more = f" and {len(worse) - _SHOWN} more" if len(worse) > _SHOWN else ""
        raise NotGoodEnough(
            f"On {on}, recall falls by more than {max_drop:.2%} against version {version}: {named}{more}."
        )


def _shown(figure: str, value: float) -> str:
    return f"{value:.4f}" if figure == "loss" else f"{value:.2%}"
