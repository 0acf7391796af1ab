"""Print the calibration figures to the terminal."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from app.system.wording import count_of

_GROUPS_SHOWN = 5


def print_calibration(found: Mapping[str, Any], console: Console) -> None:
    """Print the figures of `before_and_after`: a summary with both columns, the thresholds, and the worst groups."""
    after, before = found["after"], found["before"]
    table = Table("probabilities", *(["uncalibrated", "as served"] if before else ["as served"]))
    columns = [before, after] if before else [after]
    for name, show in _ROWS.items():
        table.add_row(name, *(show(column) for column in columns))
    console.print(table)
    console.print(_verdict(after))
    thresholds = Table("answer from", "share answered", "right of those", "95 % interval", "pictures")
    for row in after["thresholds"]:
        if not row["answered"]:
            thresholds.add_row(f"{row['threshold']:g}", "none is as sure", "", "", "0")
            break
        interval = f"{row['low']:.2%} to {row['high']:.2%}"
        share = f"{row['accuracy']:.2%}"
        thresholds.add_row(f"{row['threshold']:g}", f"{row['coverage']:.2%}", share, interval, f"{row['answered']:,}")
    console.print(thresholds)
    if after["groups"]:
        console.print(_group_lines(after["groups"]))


_ROWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "calibration error": lambda each: f"{each['debiased']['error']:.2%}",
    "  95 % interval": lambda each: f"{each['debiased']['low']:.2%} to {each['debiased']['high']:.2%}",
    "plain error, 15 bins": lambda each: f"{each['ece']['value']:.2%}",
    "  perfectly calibrated": lambda each: (
        f"{each['ece']['calibrated_mean']:.2%}, up to {each['ece']['calibrated_p95']:.2%}"
    ),
    "negative log-likelihood": lambda each: f"{each['nll']:.4f}",
    "Brier score": lambda each: f"{each['brier']:.4f}",
    "mean confidence": lambda each: f"{each['confidence']:.2%}",
    "risk–coverage area": lambda each: f"{each['risk_coverage']['aurc']:.5f}",
}


def _verdict(after: Mapping[str, Any]) -> str:
    count = count_of(after["pictures"], "picture")
    if after["debiased"]["low"] == 0:
        return f"The confidence agrees with the accuracy, as far as {count} can tell."
    direction = "too sure" if after["confidence"] > after["accuracy"] else "not sure enough"
    return f"The confidence does not agree with the accuracy: it is {direction}, and {count} are enough to say so."


def _group_lines(groups: list[dict[str, Any]]) -> str:
    outside = sum(not row["low"] <= row["accuracy"] <= row["high"] for row in groups)
    worst = "; ".join(
        f"{row['group']}: {row['accuracy']:.0%} of {row['pictures']} right, {row['confidence']:.0%} sure"
        for row in groups[:_GROUPS_SHOWN]
    )
    return (
        f"By group: {outside} of {len(groups)} are outside the band that holds 95 % of them if all is calibrated. "
        f"Lowest accuracy for their confidence: {worst}."
    )
