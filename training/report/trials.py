"""The report on what a model stands and what it costs."""

from collections.abc import Mapping
from html import escape
from typing import Any

from training.evaluation.interval import wilson
from training.page import figure, table
from training.report.material import Material
from training.report.robustness import changed_examples


def robustness(material: Material) -> str:
    found: Mapping[str, Any] = material.metrics["robustness"]
    number, unchanged = found["pictures"], found["unchanged"]
    low, high = wilson(round(unchanged * number), number)
    examples = changed_examples(material.shown.tensors.images[0], material.preprocessing)
    rows = ""
    for name, trial in found["changed"].items():
        steps = "".join(
            figure(image, f"{_strength(step['strength'], trial['unit'])}<br>"
                          f"<span class=bar style='--v:{step['accuracy']:.4f}'>{step['accuracy']:.1%}</span>")
            for step, image in zip(trial["steps"], examples[name], strict=True)
        )  # fmt: skip
        rows += f"<div class=card><b>{escape(name)}</b><div class=pictures>{steps}</div></div>"
    return (
        f"<p class=soft>Accuracy on {number:,} {escape(found['split'])} pictures, changed; unchanged it is "
        f"{unchanged:.1%} ({low:.1%} to {high:.1%}). One of them shows each change.</p>"
        f"<div class='cards trials'>{rows}</div>"
    )


def cost(material: Material) -> str:
    found = material.metrics["cost"]
    rows = [
        [escape(engine), *(f"{value * 1e3:.3g} ms" for value in by_size.values())]
        for engine, by_size in found["seconds_per_picture"].items()
    ]
    sizes = next(iter(found["seconds_per_picture"].values()))
    return (
        f"<p>{found['parameters']:,} parameters, {found['bytes'] / 1e6:.2f} MB on disk, "
        f"{material.metrics['fit_seconds']:.0f} s of training.</p>"
        + table(["time a picture", *(f"{size} at a time" for size in sizes)], rows)
        + f"<p class=soft>Measured at the end of the training, on {found['threads']} cores; without decoding.</p>"
    )


def _strength(value: float, unit: str) -> str:
    if not unit:
        return "inverted"
    return f"{value:.0%} {unit}" if unit == "of the side" else f"{value:g} {unit}"
