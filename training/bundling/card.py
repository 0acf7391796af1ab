"""Write a bundle's MODEL_CARD.md: the model, its data and recipe, its scores, and its limits."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.contract.preprocessing import PreprocessingSpec
from training.data.dataset import Split

_LIMIT = (
    "It always answers with one of its classes, whatever the picture shows; a low probability is the only hint that it "
    "shows something else."
)


_MARKUP = re.compile(r"[\\`*<>\[\]|]")


def model_card(
    *,
    name: str,
    version: int,
    labels: Sequence[str],
    preprocessing: PreprocessingSpec,
    command: str,
    data: str,
    counts: Mapping[Split, Mapping[str, int]],
    metrics: Mapping[str, Any],
    about: str | None,
) -> str:
    """Return the card as Markdown; `about` is a person's text about the data, its licence and the limits."""
    sections = [
        f"# {name}, version {version}",
        f"Distinguishes {len(labels)} classes: {', '.join(map(_plain, labels))}.",
        "## Data, licence and limits",
        about.strip()
        if about
        else "Nobody has said where the pictures come from, under which licence, or what the model must not be used "
        "for. Give `--about FILE` to `fit` to say so here.",
        "## How it was made",
        f"```\n{command}\n```",
        _made_of(data, counts, metrics),
        "## How well it does",
        _figures(metrics),
        _class_table(metrics["test"]) if metrics["test"] else "",
        _confidence(metrics["calibration"]),
        _sureness(metrics.get("sureness")),
        "## What it expects",
        _expects(preprocessing),
        _LIMIT,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _made_of(data: str, counts: Mapping[Split, Mapping[str, int]], metrics: Mapping[str, Any]) -> str:
    return (
        f"From `{data}`: {_count(counts, 'train')} pictures to learn from, {_count(counts, 'validation')} for "
        f"validation, {_count(counts, 'test')} for the test below. {metrics['parameters']:,} parameters, "
        f"{metrics['fit_seconds']:.0f} s of training."
    )


def _count(counts: Mapping[Split, Mapping[str, int]], split: Split) -> str:
    return f"{sum(counts[split].values()):,}"


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = ["| pictures | accuracy | macro recall | loss |", "|---|---|---|---|"]
    for split in ("train", "validation", "test"):
        scores = metrics[split]
        if scores:
            shown = f"{scores['accuracy']:.2%} | {scores['macro_recall']:.2%} | {scores['loss']:.4f}"
            rows.append(f"| {split} ({scores['pictures']:,}) | {shown} |")
    return "\n".join(rows)


def _class_table(scores: Mapping[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "never" if value is None else f"{value:.2%}"

    rows = ["On the test pictures:", "", "| class | precision | recall | pictures |", "|---|---|---|---|"]
    for label, row in scores["by_class"].items():
        rows.append(
            f"| {_plain(label)} | {percent(row['precision'])} | {percent(row['recall'])} | {row['pictures']:,} |"
        )
    return "\n".join(rows)


def _confidence(calibration: Mapping[str, Any]) -> str:
    """Return the calibration error and the accuracy above each threshold, in words."""
    made = (
        f"Its probabilities are calibrated: the softmax is that of logits / {calibration['temperature']:.3f}, "
        f"{calibration['reason']}."
        if calibration["method"] == "temperature"
        else f"Its probabilities are those of the softmax as trained: {calibration['reason']}."
    )
    if calibration["test"] is None:
        return made
    figures = calibration["test"]["after"]
    error, low, high = (figures["debiased"][name] for name in ("error", "low", "high"))
    apart = f"differ by {error:.2%} on average (95 % interval {low:.2%} to {high:.2%})"
    rows = [
        f"{made} On the test pictures confidence and accuracy {apart}.",
        "",
        "| answer only from | covers | right of those |",
        "|---|---|---|",
    ]
    rows += [
        f"| {row['threshold']:g} | {row['coverage']:.2%} | {row['accuracy']:.2%} |"
        for row in figures["thresholds"]
        if row["answered"]
    ]
    return "\n".join(rows)


def _sureness(sureness: Mapping[str, Any] | None) -> str:
    if sureness is None or sureness["min_probability"] is None:
        return ""
    found = sureness["test"] if "test" in sureness else sureness["validation"]
    right = "none of those is right" if not found["precision"] else f"{found['precision']:.2%} of those are right"
    return (
        f"Answers below a probability of {sureness['min_probability']:g} are called unsure. "
        f"{found['coverage']:.2%} of {found['pictures']:,} held-out pictures have other answers, and {right}."
    )


def _expects(spec: PreprocessingSpec) -> str:
    colour = "grey" if spec.colour == "grey" else "colour"
    fit = {"stretch": "stretched to", "pad": "fitted into", "crop": "cut at the centre to"}[spec.resize]
    polarity = " A picture with a light border is inverted first." if spec.polarity == "light_on_dark" else ""
    if spec.framing == "mass":
        polarity += " The drawing on it is scaled to one size and centred."
    return (
        "Any JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC. It is turned upright by its EXIF orientation, "
        f"made {colour}, and {fit} {spec.width}x{spec.height} pixels.{polarity}"
    )


def _plain(label: str) -> str:
    """Escape a label as one line of Markdown, also inside a table."""
    return _MARKUP.sub(lambda found: "\\" + found[0], " ".join(label.split()))
