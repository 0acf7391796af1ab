"""The command `python -m training audit`. It finds nothing itself."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.system.invocation import command_line
from app.system.wording import count_of
from training.audit.cache import Cache
from training.audit.checks import CHECKS, parse_checks, parse_thresholds
from training.audit.fix import write_fixed
from training.audit.groups import groups_of
from training.audit.page import audit_page
from training.audit.pipeline import AuditOptions, run_audit
from training.audit.report import Audit, summary
from training.commands.declared_options import command
from training.data.sources import open_data
from training.data.tensor_cache import TensorCache
from training.errors import DataError
from training.options import CacheOption, DataOption, GroupByOption
from training.progress import Reporter

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}

FailOnOption = Annotated[
    str,
    typer.Option(
        help="Exit with code 1 if one of these checks finds something, such as leakage,corrupt; error, warning and "
        f"info stand for all checks of that severity. Checks: {', '.join(CHECKS)}."
    ),
]
FixOption = Annotated[
    Path | None,
    typer.Option(
        help="Write a corrected copy: with the decisions of review, and without pictures that are certain to be "
        "wrong; into a new folder, or as a manifest if the name ends in .csv. The originals are not touched.",
        show_default=False,
    ),
]
ThresholdOption = Annotated[
    list[str] | None, typer.Option("--threshold", help="Set a check's threshold, such as blurred=0.2; may be repeated.")
]


@command
def audit(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for audit.json and audit.html.")] = Path("audit"),
    fail_on: FailOnOption = "",
    group_by: GroupByOption = None,
    threshold: ThresholdOption = None,
    near: Annotated[bool, typer.Option(help="Look for near duplicates.")] = True,
    labels: Annotated[bool, typer.Option(help="Look for wrong labels; this trains models.")] = True,
    fix: FixOption = None,
    cache: CacheOption = True,
) -> None:
    """Find what is wrong with labelled pictures before anything is trained on them."""
    fails = parse_checks("--fail-on", fail_on)
    thresholds = parse_thresholds(threshold or ())
    reporter = Reporter()
    dataset = open_data(data, say=reporter.say, tolerant=True)
    groups = groups_of(dataset, data, group_by)
    kept = Cache.of_user(data, keeps=cache)
    tensors = TensorCache.of_user(keeps=cache, say=reporter.say)
    options = AuditOptions(near=near, labels=labels, thresholds=thresholds, groups=groups, cache=kept, tensors=tensors)
    found = run_audit(dataset, options, reporter)
    review = command_line("training", "review", data) if found.findings and Path(data).exists() else None
    _write(found, out, review)
    _print(found)
    typer.echo(f"{out / 'audit.html'} shows the pictures; {out / 'audit.json'} is for programs.")
    if fix is not None:
        _fix(found, fix)
    if review is not None:
        typer.echo(f"To relabel, keep or drop these pictures, one key press each: {review}")
    failed = [name for name in found.counts() if name in fails]
    if failed:
        typer.echo(f"error: --fail-on: {', '.join(failed)}.", err=True)
        raise typer.Exit(1)


def _fix(found: Audit, out: Path) -> None:
    fixed = write_fixed(found, out)
    reasons = Counter(reason.partition(":")[0] for _, reason in fixed.left_out)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "nothing"
    typer.echo(f"{out}: {count_of(fixed.kept, 'picture')}. Left out: {listed}. The originals were not touched.")


def _write(found: Audit, out: Path, review: str | None) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "audit.json").write_text(found.to_json(), encoding="utf-8")
        (out / "audit.html").write_text(audit_page(found, review=review), encoding="utf-8")
    except OSError as exc:
        raise DataError(f"--out {out} cannot be written: {exc.strerror or exc}.") from exc


def _print(found: Audit) -> None:
    console = Console(soft_wrap=True, highlight=False)
    census = found.census
    typer.echo(
        f"{found.dataset.origin}: {count_of(census['pictures'], 'picture')} in "
        f"{count_of(len(census['classes']), 'class')}, "
        f"{census['usable']:,} usable, in {sum(found.seconds.values()):.1f} s"
    )
    if found.settled:
        typer.echo(f"{count_of(found.settled, 'finding')} that a person has answered left out.")
    if rows := summary(found):
        table = Table("severity", "check", "findings", "the worst")
        for severity, check, count, first in rows:
            table.add_row(f"[{_COLOURS[severity]}]{severity}[/]", check, f"{count:,}", escape(first))
        console.print(table)
    else:
        typer.echo("Nothing was found.")
    for check, reason in found.skipped.items():
        typer.echo(f"not checked: {check}: {reason}")
