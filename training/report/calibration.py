"""The report's section on calibration: reliability, and accuracy if only confident answers are given."""

from collections.abc import Callable, Mapping
from typing import Any

from training.report.material import Content, Material
from training.report.plots import Plot, Series, percent, plot

_GROUPS = 15


def calibration(material: Material) -> Content | None:
    """Return metrics.json's `calibration`, None if the run has none."""
    found, split = material.metrics.get("calibration"), material.shown.split
    figures = found and found.get(split)
    if not found or not figures:
        return None
    before, after = figures["before"], figures["after"]
    return {
        "temperature": f"{found['temperature']:.3f}",
        "reason": found["reason"],
        "pictures": f"{after['pictures']:,}",
        "split": split,
        "figures": _figures(before, after),
        "reliability": _reliability(before, after),
        "risk_coverage": _risk_coverage(after),
        "thresholds": _thresholds(after),
        "groups": _groups(after.get("groups") or []),
    }


def _figures(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Content:
    columns = [("as served", after)] if before is None else [("before", before), ("after", after)]

    def row(name: str, show: Callable[[Mapping[str, Any]], str]) -> list[str]:
        return [name, *(show(each) for _, each in columns)]

    rows = [
        row("accuracy", lambda each: f"{each['accuracy']:.2%}"),
        row("mean confidence", lambda each: f"{each['confidence']:.2%}"),
        row("debiased calibration error", lambda each: f"{each['debiased']['error']:.2%}"),
        row("its 95 % interval", lambda each: f"{each['debiased']['low']:.2%} to {each['debiased']['high']:.2%}"),
        row("plain ECE, 15 bins", lambda each: f"{each['ece']['value']:.2%}"),
        row("what a calibrated model would show", lambda each: f"{each['ece']['calibrated_mean']:.2%}"),
        row("negative log-likelihood", lambda each: f"{each['nll']:.4f}"),
        row("Brier score", lambda each: f"{each['brier']:.4f}"),
    ]
    return {"head": ["", *(name for name, _ in columns)], "rows": rows}


def _reliability(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Plot:
    def points(figures: Mapping[str, Any]) -> list[tuple[float, float]]:
        return [(each["confidence"], each["accuracy"]) for each in figures["reliability"]]

    band = [(each["confidence"], each["low"], each["high"]) for each in after["reliability"]]
    ends = [x for figures in (before, after) if figures for x, _ in points(figures)]
    series = [Series("after" if before else "as served", points(after), band=band)]
    if before:
        series.append(Series("before", points(before)))
    series.append(Series("calibrated", [(min(ends), min(ends)), (max(ends), max(ends))], guide=True))
    return plot("accuracy", series, across="confidence (band: where a calibrated model lies)",
                format_x=percent, format_y=percent)  # fmt: skip


def _risk_coverage(after: Mapping[str, Any]) -> Plot:
    points = [(each["coverage"], each["risk"]) for each in after["risk_coverage"]["points"]]
    return plot("wrong answers", [Series("risk", points)], across=
        "share of pictures answered, the most confident "
        "first",
                format_x=percent, format_y=percent)  # fmt: skip


def _thresholds(after: Mapping[str, Any]) -> Content:
    reached = sum(each["accuracy"] is not None for each in after["thresholds"])
    rows = [
        [
            f"{each['threshold']:g}",
            f"{each['coverage']:.2%}",
            "–" if each["accuracy"] is None else f"{each['accuracy']:.2%}",
            "–" if each["low"] is None else f"{each['low']:.2%} to {each['high']:.2%}",
        ]
        for each in after["thresholds"][: reached + 1]  # the first that no picture reaches stands for the rest
    ]
    return {"head": ["probability", "answered", "right", "95 % interval"], "rows": rows}


def _groups(groups: list[Mapping[str, Any]]) -> Content:
    rows = [
        [
            str(each["group"]),
            f"{each['pictures']:,}",
            f"{each['accuracy']:.1%}",
            f"{each['confidence']:.1%}",
            f"{each['low']:.1%} to {each['high']:.1%}",
        ]
        for each in groups[:_GROUPS]
    ]
    head = ["group", "pictures", "accuracy", "confidence", "calibrated would be"]
    return {"number": f"{len(groups):,}", "head": head, "rows": rows}
