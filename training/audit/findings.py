"""A finding: one check, the pictures it is about, how bad it is, and a sentence. It does not know how it is shown."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from training.audit.checks import CHECKS, SEVERITIES, Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    `pictures` are ids, first the one to act on; empty if the finding is about a class. A higher `score` is worse, and
    comparable within one check only. `likely` has the classes that the first picture may belong to, the most probable
    first, each with its probability; it is empty unless a model was used.
    """

    check: str
    pictures: tuple[str, ...]
    score: float
    sentence: str
    likely: tuple[tuple[str, float], ...] = field(default=(), compare=False)

    @property
    def severity(self) -> Severity:
        return CHECKS[self.check].severity


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity, then in the checks' order, the worst of each first."""
    order = {name: place for place, name in enumerate(CHECKS)}
    return sorted(
        findings,
        key=lambda found: (SEVERITIES.index(found.severity), order[found.check], -found.score, found.pictures),
    )
