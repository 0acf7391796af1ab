"""Draw an audit as one HTML page that needs nothing else: the pictures worst first, each with what is wrong with it.

File names and labels are a stranger's text: all of it is escaped, and the page allows itself no script and no address.
"""

from collections.abc import Mapping
from html import escape

from training.audit.checks import CHECKS, Check
from training.audit.findings import Finding
from training.audit.report import Audit
from training.data.dataset import Picture
from training.page import document, figure, thumbnail

_SHOWN_OF_A_CHECK = 60
_SHOWN_OF_A_FINDING = 6


def audit_page(audit: Audit) -> str:
    """Return audit.html."""
    by_id = {picture.id: picture for picture in audit.dataset.pictures}
    counts = audit.counts()
    sections = [_section(CHECKS[name], audit, by_id) for name in counts]
    nothing = [name for name in CHECKS if name not in counts and name not in audit.skipped]
    skipped = "".join(
        f"<p class=soft>{escape(name)}: not checked, {escape(why)}</p>" for name, why in audit.skipped.items()
    )
    origin = escape(audit.dataset.origin)
    body = (
        f"<h1>Audit of {origin}</h1>\n<p>{_counted(audit)}</p>\n"
        f"{_contents(counts)}\n{_census(audit)}\n"
        + "\n".join(sections)
        + f"\n<h2>Nothing to say</h2><p class=soft>Found nothing: {escape(', '.join(nothing)) or '–'}.</p>{skipped}"
    )
    return document(f"Audit of {origin}", body)


def finding_card(finding: Finding, by_id: Mapping[str, Picture]) -> str:
    """Return a finding's pictures and sentence; `by_id` holds the pictures that it names."""
    figures = "".join(_figure(by_id[name]) for name in finding.pictures[:_SHOWN_OF_A_FINDING])
    rest = len(finding.pictures) - _SHOWN_OF_A_FINDING
    more = f" <span class=soft>({rest:,} more)</span>" if rest > 0 else ""
    return f"<div class=card><div class=pictures>{figures}</div><p>{escape(finding.sentence)}{more}</p></div>"


def _counted(audit: Audit) -> str:
    census = audit.census
    return (
        f"{census['pictures']:,} pictures, {census['usable']:,} of them usable, in {len(census['classes'])} classes. "
        f"{len(audit.findings):,} findings."
    )


def _contents(counts: Mapping[str, int]) -> str:
    rows = "".join(
        f"<tr><td><span class='badge {CHECKS[name].severity}'>{CHECKS[name].severity}</span></td>"
        f"<td><a href='#{name}'>{name}</a></td><td class=number>{count:,}</td><td>{escape(CHECKS[name].what)}</td></tr>"
        for name, count in counts.items()
    )
    return f"<table>{rows}</table>" if rows else "<p>Nothing was found.</p>"


def _census(audit: Audit) -> str:
    census = audit.census

    def listed(counts: Mapping[str, int]) -> str:
        return escape(", ".join(f"{name} {count:,}" for name, count in counts.items()))

    rows = {
        "classes": listed(census["classes"]),
        "splits": listed(census["splits"]),
        "formats": listed(census["formats"]),
        "modes": listed(census["modes"]),
        "sizes": listed(census["sizes"])
        + (f" and {census['further_sizes']:,} more" if census["further_sizes"] else ""),
        "with alpha": f"{census['with_alpha']:,}",
        "turned by EXIF": f"{census['turned_by_exif']:,}",
    }
    if audit.groups:
        rows["groups"] = f"{len(set(audit.groups.values())):,}"
    body = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows.items())
    return f"<h2>What there is</h2><table>{body}</table>"


def _section(check: Check, audit: Audit, by_id: Mapping[str, Picture]) -> str:
    findings = [found for found in audit.findings if found.check == check.name]
    shown = findings[:_SHOWN_OF_A_CHECK]
    threshold = f" Threshold: {audit.thresholds[check.name]:g} {check.unit}." if check.threshold is not None else ""
    rest = len(findings) - len(shown)
    more = f"<p class=soft>And {rest:,} more in audit.json.</p>" if rest else ""
    return (
        f"<h2 id='{check.name}'><span class='badge {check.severity}'>{check.severity}</span> {check.name}: "
        f"{len(findings):,} × {escape(check.what)}</h2>\n<p class=soft>{escape(check.reason)}{escape(threshold)}</p>\n"
        f"<div class=cards>{''.join(finding_card(found, by_id) for found in shown)}</div>{more}"
    )


def _figure(picture: Picture) -> str:
    where = " · ".join(escape(part) for part in (picture.label, picture.split) if part)
    return figure(thumbnail(picture), f"{escape(picture.id)}<br><span class=soft>{where}</span>")
