"""The report on the course of the training: curves over the epochs, and how to repeat the run."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from training.page import table
from training.report.material import Material
from training.report.plots import Series, chart, percent, plain

_CURVES = (
    ("loss", (("training", "loss"), ("validation", "validation_loss")), plain),
    ("accuracy", (("training", "accuracy"), ("validation", "validation_accuracy")), percent),
    ("learning rate", (("learning rate", "learning_rate"),), plain),
)


def curves(material: Material) -> str:
    epochs = material.metrics["epochs"]
    plots = [
        chart(title, drawn, across="epoch", format_y=format_y)
        for title, lines, format_y in _CURVES
        if (drawn := [series for name, figure in lines if (series := _over_epochs(name, figure, epochs)).points])
    ]
    note = (
        "<p class=soft>Training figures are means over the epoch, while the weights change, and on augmented pictures "
        "where there is augmentation; so they can be worse than validation's.</p>"
    )
    return f"{note}<div class=plots>{''.join(plots)}</div>"


def repeat(material: Material) -> str:
    record = material.training
    rows = [
        [escape(name.replace("_", " ")), escape(value if isinstance(value, str) else json.dumps(value))]
        for name, value in record["recipe"].items()
    ]
    layers = escape(json.dumps(record["layers"], indent=1))
    return (
        f"<pre><code>{escape(record['command'])}</code></pre>"
        f"<p class=soft>Preset {escape(str(record['preset']))}, seed {record['seed']}.</p>{table(['recipe', ''], rows)}"
        f"<details><summary>Layers</summary><pre>{layers}</pre></details>"
    )


def _over_epochs(name: str, figure: str, epochs: list[Mapping[str, Any]]) -> Series:
    points = [(number, epoch[figure]) for number, epoch in enumerate(epochs, 1) if epoch.get(figure) is not None]
    return Series(name, points)
