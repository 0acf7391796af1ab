"""The audit as the first step of `fit`: reject splits that leak, and group pictures that must stay in one split.

It only looks for copies. The other checks of an audit take longer, and their findings are for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.system.invocation import command_line
from app.system.wording import count_of
from training.audit.cache import Cache
from training.audit.findings import Finding
from training.audit.groups import together
from training.audit.pipeline import AuditOptions, run_audit
from training.audit.report import Audit
from training.data.dataset import Dataset
from training.errors import LeakageError
from training.progress import Reporter

_NAMED = 5


@dataclass(frozen=True)
class Inspection:
    """The units that `assign_splits` must not divide, `together` by picture id, and the findings.

    `record` goes into the bundle's manifest, with counts of the `findings`, which are worst first.
    """

    together: Mapping[str, str]
    record: Mapping[str, Any]
    findings: tuple[Finding, ...]


def inspect(
    dataset: Dataset,
    *,
    data: str,
    groups: Mapping[str, str],
    divides: bool,
    allow_leakage: bool,
    cache: Cache,
    reporter: Reporter,
) -> Inspection:
    """Look for copies before training.

    Near duplicates are looked for only if a split is to be made (`divides`). `data` is the data's name on the command
    line. Raises LeakageError if the given splits have pictures or groups in common, unless that is allowed.
    """
    audit = run_audit(dataset, AuditOptions(near=divides, labels=False, groups=groups, cache=cache), reporter)
    leaks = [finding for finding in audit.findings if finding.check == "leakage"]
    if leaks and not allow_leakage:
        raise LeakageError(_leakage_message(dataset, data, leaks))
    alike = [*audit.exact, *((pair.first, pair.second) for pair in audit.near)]
    joined = together(dataset.pictures, alike, groups)
    if line := _summary(audit, len(joined), len(set(joined.values())), divides=divides):
        reporter.say(line)
    counts = audit.counts()
    names = ("corrupt", "leakage", "near-leakage", "conflict", "duplicate", "near-duplicate", "too-large")
    return Inspection(
        together=joined if divides else {},
        record={**{name: counts.get(name, 0) for name in names}, "groups": len(set(groups.values()))},
        findings=tuple(finding for finding in audit.findings if finding.check in names),
    )


def _leakage_message(dataset: Dataset, data: str, leaks: list[Finding]) -> str:
    first = leaks[0]
    named = ", ".join(first.pictures[:3]) + (" …" if len(first.pictures) > 3 else "")
    more = f" There are {len(leaks) - 1:,} more." if len(leaks) > 1 else ""
    return (
        f"The splits of {dataset.origin} leak: {first.sentence.rstrip('.')} ({named}).{more} A test on what was "
        f"learned proves nothing. `{command_line('training', 'audit', '--data', data)}` shows them, and with --fix "
        "removes them; --allow-leakage trains all the same."
    )


def _summary(audit: Audit, pictures: int, units: int, *, divides: bool) -> str:
    counts = audit.counts()
    found = [f"{counts[name]:,} {name}" for name in counts if name in ("leakage", "near-leakage", "conflict")]
    parts = [", ".join(found)] if found else []
    if too_large := [finding for finding in audit.findings if finding.check == "too-large"]:
        named = ", ".join(finding.pictures[0] for finding in too_large[:_NAMED])
        more = f" and {len(too_large) - _NAMED:,} more" if len(too_large) > _NAMED else ""
        count = f"{count_of(len(too_large), 'picture')} {'is' if len(too_large) == 1 else 'are'}"
        parts.append(f"{count} larger than the service accepts unless its limits are raised: {named}{more}")
    if pictures and divides:
        parts.append(
            f"{pictures:,} pictures are kept together in {count_of(units, 'group')}, as copies or by --group-by"
        )
    return f"audit: {'; '.join(parts)}" if parts else ""
