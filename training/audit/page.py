"""Draw an audit as one HTML page that needs nothing else: the pictures worst first, each with what is wrong with it.

File names and labels are a stranger's text: all of it is escaped, and the page allows itself no script and no address.
"""

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

import cv2

from app.contract.preprocessing import Image, PreprocessingSpec, decode, prepare
from app.errors import ImageError
from training.audit.checks import CHECKS, Check
from training.audit.findings import Finding
from training.audit.report import Audit
from training.dataset import Picture
from training.errors import DataError

_SHOWN_OF_A_CHECK = 60
_SHOWN_OF_A_FINDING = 6
_SIDE = 128
_SMALL = 64

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; } p { margin: .25rem 0 .75rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.badge { border-radius: .3rem; padding: 0 .45rem; font-size: .8rem; color: #fff; }
.error { background: #b3261e; } .warning { background: #8a5a00; } .info { background: #38617d; }
.soft { opacity: .75; } .cards { display: flex; flex-wrap: wrap; gap: .75rem; align-items: stretch; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; max-width: 30rem; }
.card p { margin: .4rem 0 0; max-width: 28rem; } .pictures { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 128px; } figcaption { font-size: .78rem; overflow-wrap: anywhere; line-height: 1.3; }
img, .none { width: 128px; height: 128px; object-fit: contain; background: var(--soft); display: block; }
.none { display: grid; place-items: center; font-size: .8rem; } img.small { image-rendering: pixelated; }
"""


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
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>Audit of {origin}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Audit of {origin}</h1>\n<p>{_counted(audit)}</p>\n"
        f"{_contents(counts)}\n{_census(audit)}\n"
        + "\n".join(sections)
        + f"\n<h2>Nothing to say</h2><p class=soft>Found nothing: {escape(', '.join(nothing)) or '–'}.</p>{skipped}\n"
        + "</body></html>\n"
    )


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
        f"<div class=cards>{''.join(_card(found, by_id) for found in shown)}</div>{more}"
    )


def _card(finding: Finding, by_id: Mapping[str, Picture]) -> str:
    figures = "".join(_figure(by_id[name]) for name in finding.pictures[:_SHOWN_OF_A_FINDING])
    rest = len(finding.pictures) - _SHOWN_OF_A_FINDING
    more = f" <span class=soft>({rest:,} more)</span>" if rest > 0 else ""
    return f"<div class=card><div class=pictures>{figures}</div><p>{escape(finding.sentence)}{more}</p></div>"


def _figure(picture: Picture) -> str:
    where = " · ".join(escape(part) for part in (picture.label, picture.split) if part)
    caption = f"<figcaption>{escape(picture.id)}<br><span class=soft>{where}</span></figcaption>"
    try:
        image = _thumbnail(picture)
    except (ImageError, DataError):
        return f"<figure><div class=none>no picture</div>{caption}</figure>"
    small = " class=small" if max(image.shape[:2]) < _SMALL else ""
    return f"<figure><img{small} alt='' src='{_data_url(image)}'>{caption}</figure>"


def _thumbnail(picture: Picture) -> Image:
    if isinstance(picture.content, Path):
        image = decode(picture.encoded(), PreprocessingSpec(height=1, width=1, colour="rgb"))
    else:
        image = picture.content
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return prepare(image, PreprocessingSpec(height=height, width=width, colour="rgb"))


def _data_url(image: Image) -> str:
    kind, options = ("png", []) if max(image.shape[:2]) < _SMALL else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    _, encoded = cv2.imencode(f".{kind}", image[..., ::-1], options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
