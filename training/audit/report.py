"""What an audit found, as one JSON object and as a few lines for people. It makes no pictures and reads no data."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.audit.checks import CHECKS, Thresholds
from training.audit.findings import Finding, worst_first
from training.audit.image_stats import Look
from training.audit.pairs import NearPair
from training.data.dataset import Dataset

_SCHEMA = 1


@dataclass(frozen=True)
class Audit:
    """Everything that an audit found. `looks` go with the data set's pictures, row by row; `findings` are worst first.

    `groups` maps picture ids to groups if there are any. `seconds` is the time of each step.
    """

    dataset: Dataset
    looks: Sequence[Look]
    census: Mapping[str, Any]
    findings: Sequence[Finding]
    exact: Sequence[Sequence[int]]
    near: Sequence[NearPair]
    groups: Mapping[str, str]
    thresholds: Thresholds
    skipped: Mapping[str, str]
    """Checks that were not made, and why."""
    seconds: Mapping[str, float]
    settled: int = 0
    """The number of findings that a person has answered; they are not among `findings`."""

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each check that found something, worst first."""
        return dict(Counter(found.check for found in worst_first(self.findings)))

    def to_json(self) -> str:
        """Return audit.json."""
        counts = self.counts()
        found = {
            "schema": _SCHEMA,
            "data": self.dataset.origin,
            "census": self.census,
            "checks": {
                check.name: {
                    "severity": check.severity,
                    "what": check.what,
                    "threshold": self.thresholds[check.name] if check.threshold is not None else None,
                    "findings": counts.get(check.name, 0),
                    **({"skipped": self.skipped[check.name]} if check.name in self.skipped else {}),
                }
                for check in CHECKS.values()
            },
            "findings": [
                {
                    "check": finding.check,
                    "severity": finding.severity,
                    "pictures": list(finding.pictures),
                    "score": round(finding.score, 5),
                    "sentence": finding.sentence,
                }
                for finding in self.findings
            ],
            "settled": self.settled,
            "groups": len(set(self.groups.values())),
            "seconds": {step: round(seconds, 2) for step, seconds in self.seconds.items()},
        }
        return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def summary(audit: Audit) -> list[tuple[str, str, int, str]]:
    """Return rows of severity, check, number of findings and the first sentence, worst first."""
    first: dict[str, Finding] = {}
    for finding in audit.findings:
        first.setdefault(finding.check, finding)
    counts = audit.counts()
    return [(finding.severity, check, counts[check], _named(finding)) for check, finding in first.items()]


def _named(finding: Finding) -> str:
    return f"{finding.pictures[0]}: {finding.sentence}" if finding.pictures else finding.sentence
