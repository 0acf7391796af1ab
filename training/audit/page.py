"""Write an audit as one self-contained HTML page: the pictures, worst first, each with its defects."""

from collections.abc import Mapping

from app.system.wording import count_of
from training.audit.cards import Found
from training.audit.checks import CHECKS, Check
from training.audit.report import Audit
from training.pages.rendering import render

_CARDS_OF_A_CHECK = 60


def audit_page(audit: Audit, *, review: str | None) -> str:
    """Return audit.html; `review` is the command that acts on it, None if the data cannot be acted on."""
    by_id = {picture.id: picture for picture in audit.dataset.pictures}
    found = audit.counts()
    nothing = [name for name in CHECKS if name not in found and name not in audit.skipped]
    checks = [
        Found.of(
            CHECKS[name],
            [finding for finding in audit.findings if finding.check == name],
            by_id,
            most=_CARDS_OF_A_CHECK,
        )
        for name in found
    ]
    return render(
        "audit/templates/audit.html.j2",
        title=f"Audit of {audit.dataset.origin}",
        counted=_counted(audit),
        review=review,
        census=_census(audit),
        checks=checks,
        reasons={name: _reason(CHECKS[name], audit) for name in found},
        nothing=", ".join(nothing) or "–",
        skipped=audit.skipped,
    )


def _counted(audit: Audit) -> str:
    census = audit.census
    settled = f", and {audit.settled:,} that a person has answered" if audit.settled else ""
    return (
        f"{count_of(census['pictures'], 'picture')}, {census['usable']:,} usable, in "
        f"{count_of(len(census['classes']), 'class')}. {count_of(len(audit.findings), 'finding')}{settled}."
    )


def _census(audit: Audit) -> dict[str, str]:
    census = audit.census

    def listed(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())

    further = f" and {census['further_sizes']:,} more" if census["further_sizes"] else ""
    rows = {
        "classes": listed(census["classes"]),
        "splits": listed(census["splits"]),
        "formats": listed(census["formats"]),
        "modes": listed(census["modes"]),
        "sizes": listed(census["sizes"]) + further,
        "with alpha": f"{census['with_alpha']:,}",
        "turned by EXIF": f"{census['turned_by_exif']:,}",
    }
    if audit.groups:
        rows["groups"] = f"{len(set(audit.groups.values())):,}"
    return rows


def _reason(check: Check, audit: Audit) -> str:
    if check.threshold is None:
        return check.reason
    return f"{check.reason} Threshold: {audit.thresholds[check.name]:g} {check.unit}."
