"""Compare the scores of two bundles on the same pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.contract.bundle import Bundle
from app.engines.registry import EngineChoice
from training.data.dataset import Picture
from training.errors import OptionError
from training.evaluation.compare.paired import Paired
from training.evaluation.compare.side import Side, run_side
from training.progress import Reporter


@dataclass(frozen=True)
class Comparison:
    a: Side
    b: Side
    pictures: tuple[Picture, ...]
    paired: Paired

    def as_dict(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        low, high = self.paired.interval()
        return {
            "pictures": self.paired.pictures,
            "a": self.a.as_dict(),
            "b": self.b.as_dict(),
            "both_right": self.paired.both,
            "only_a_right": self.paired.only_a,
            "only_b_right": self.paired.only_b,
            "neither_right": self.paired.neither,
            "p_value": self.paired.p_value,
            "difference": {"value": self.paired.difference, "low": low, "high": high, "level": 0.95},
            "verdict": self.paired.verdict(self.a.name, self.b.name),
            "disagreements": self.disagreements(),
        }

    def disagreements(self, count: int = 20) -> list[dict[str, Any]]:
        """Return the pictures that only one bundle has right, most confident mistakes of the other first."""
        rows = np.flatnonzero(self.a.right != self.b.right)
        sure_a, sure_b = (side.probabilities[rows].max(axis=1) for side in (self.a, self.b))
        wrong = np.where(self.a.right[rows], sure_b, sure_a)
        return [
            {
                "picture": self.pictures[row].id,
                "label": self.pictures[row].label,
                "right": "a" if self.a.right[row] else "b",
                "a": self.a.answer(row),
                "b": self.b.answer(row),
            }
            for row in rows[np.argsort(-wrong, kind="stable")][:count].tolist()
        ]


def check_comparable(a: Bundle, b: Bundle) -> None:
    """Raise OptionError if both are the same bundle, or have different classes."""
    if a.path == b.path:
        raise OptionError(f"Both are {a.name}:{a.version}. Name two bundles.")
    only_a, only_b = set(a.manifest.labels) - set(b.manifest.labels), set(b.manifest.labels) - set(a.manifest.labels)
    if only_a or only_b:
        known, unknown, lacking = (a, b, sorted(only_a)) if only_a else (b, a, sorted(only_b))
        raise OptionError(
            f"{known.name}:{known.version} knows the class '{lacking[0]}', and {unknown.name}:{unknown.version} does "
            "not: only bundles with the same classes can be compared."
        )


def compare(
    a: Bundle,
    b: Bundle,
    pictures: Sequence[Picture],
    *,
    origin: str,
    engine: EngineChoice,
    cache: bool,
    reporter: Reporter,
) -> Comparison:
    """Run both bundles on the pictures of the data `origin`, each with its own preprocessing and engine.

    Raises OptionError as `check_comparable` does, DataError for pictures that cannot be used.
    """
    check_comparable(a, b)
    names = _names(a, b)
    sides = [
        run_side(bundle, name, pictures, origin=origin, engine=engine, cache=cache, reporter=reporter)
        for bundle, name in zip((a, b), names, strict=True)
    ]
    return Comparison(sides[0], sides[1], tuple(pictures), Paired.of(sides[0].right, sides[1].right))


def _names(a: Bundle, b: Bundle) -> tuple[str, str]:
    """Return name:version of each bundle, or their paths if these names are equal."""
    first, second = f"{a.name}:{a.version}", f"{b.name}:{b.version}"
    return (first, second) if first != second else (str(a.path), str(b.path))
