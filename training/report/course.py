"""The report's section on the training: curves over the epochs, and the command to repeat the run."""

import json
from collections.abc import Mapping
from typing import Any

from training.report.material import Content, Material
from training.report.plots import Series, percent, plain, plot

_CURVES = (
    ("loss", (("training", "loss"), ("validation", "validation_loss")), plain),
    ("accuracy", (("training", "accuracy"), ("validation", "validation_accuracy")), percent),
    ("learning rate", (("learning rate", "learning_rate"),), plain),
)


def curves(material: Material) -> Content:
    epochs = material.metrics["epochs"]
    plots = [
        plot(title, drawn, across="epoch", format_y=format_y)
        for title, lines, format_y in _CURVES
        if (drawn := [series for name, figure in lines if (series := _over_epochs(name, figure, epochs)).points])
    ]
    return {"plots": plots}


def repeat(material: Material) -> Content:
    record = material.training
    return {
        "command": record["command"],
        "preset": record["preset"],
        "seed": record["seed"],
        "recipe": {
            name.replace("_", " "): value if isinstance(value, str) else json.dumps(value)
            for name, value in record["recipe"].items()
        },
        "layers": json.dumps(record["layers"], indent=1),
    }


def _over_epochs(name: str, figure: str, epochs: list[Mapping[str, Any]]) -> Series:
    points = [(number, epoch[figure]) for number, epoch in enumerate(epochs, 1) if epoch.get(figure) is not None]
    return Series(name, points)
