"""The report's section on the answers: scores, the confusion matrix, and the most confident mistakes as pictures."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import CLASS_MAPS
from app.contract.heat_map import canvas, overlay
from app.contract.preprocessing import Box, Image
from app.engines.engine import Engine, GivesOutputs
from training.data.dataset import SPLITS
from training.evaluation.interval import wilson
from training.pages.images import InlineImage, inline, thumbnail
from training.report.material import Content, Material
from training.report.mistakes import Mistake, worst_mistakes

_MISTAKES = 24
_WIDEST_MATRIX = 30
_CONFUSED_PAIRS = 30
_WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def scores(material: Material) -> Content:
    rows = []
    for split in SPLITS:
        found = material.metrics[split]
        if found:
            low, high = wilson(round(found["accuracy"] * found["pictures"]), found["pictures"])
            rows.append(
                [
                    split,
                    f"{found['pictures']:,}",
                    f"{found['accuracy']:.2%}",
                    f"{low:.2%} to {high:.2%}",
                    f"{found['macro_recall']:.2%}",
                    f"{found['macro_f1']:.2%}",
                    f"{found['worst_recall']:.2%}",
                    f"{found['loss']:.4f}",
                ]
            )
    head = ["pictures", "number", "accuracy", "95 % interval", "macro recall", "macro F1", "worst recall", "loss"]
    return {"head": head, "rows": rows}


def by_class(material: Material) -> Content:
    def shown(value: float | None) -> Content | str:
        return "never" if value is None else {"share": f"{value:.4f}", "text": f"{value:.2%}"}

    rows = [
        [label, shown(row["precision"]), shown(row["recall"]), f"{row['pictures']:,}"]
        for label, row in material.metrics[material.shown.split]["by_class"].items()
    ]
    return {"head": ["class", "precision", "recall", "pictures"], "rows": rows}


def confusion(material: Material) -> Content:
    """Return the matrix, or the pairs of classes confused most often if it is too wide for a page."""
    counts = material.metrics[material.shown.split]["confusion"]
    labels = material.dataset.labels
    if len(labels) > _WIDEST_MATRIX:
        pairs = sorted(
            ((counts[row][column], row, column) for row in range(len(labels)) for column in range(len(labels))
             if row != column and counts[row][column]),
            reverse=True,
        )  # fmt: skip
        rows = [[labels[row], labels[column], f"{n:,}"] for n, row, column in pairs[:_CONFUSED_PAIRS]]
        return {"head": ["is", "taken for", "pictures"], "rows": rows}
    return {"matrix": [_matrix_row(label, row, labels) for label, row in zip(labels, counts, strict=True)]}


def _matrix_row(label: str, counts: list[int], labels: tuple[str, ...]) -> Content:
    total = sum(counts) or 1
    cells = [
        {"right": taken_for == label, "share": f"{count / total:.4f}", "count": f"{count:,}" if count else ""}
        for taken_for, count in zip(labels, counts, strict=True)
    ]
    return {"label": label, "cells": cells}


def class_maps_of_mistakes(material: Material, engine: Engine) -> Mapping[int, NDArray[np.float32]]:
    """Return the class maps (h, w, K) of the shown mistakes by their row; of none if the network has no such maps."""
    rows = [mistake.row for mistake in _shown_mistakes(material)]
    if not rows or not isinstance(engine, GivesOutputs):
        return {}
    found: dict[int, NDArray[np.float32]] = {}
    for row in rows:
        outputs = engine.outputs(material.shown.tensors.images[row : row + 1])
        if CLASS_MAPS not in outputs:
            return {}
        found[row] = outputs[CLASS_MAPS][0]
    return found


def _shown_mistakes(material: Material) -> list[Mistake]:
    held = material.shown
    return worst_mistakes(held.probabilities, held.tensors.targets, material.dataset.labels, most=_MISTAKES)


def _heat_map(image: Image, grid: NDArray[np.float32]) -> InlineImage:
    return inline(overlay(canvas(image[..., 0] if image.shape[2] == 1 else image), grid, _WHOLE))


def mistakes(material: Material) -> Content:
    held, labels = material.shown, material.dataset.labels
    scored = material.metrics[held.split]
    shown = []
    for mistake in _shown_mistakes(material):
        picture, maps = held.tensors.pictures[mistake.row], material.class_maps.get(mistake.row)
        of_labels = (mistake.predicted, picture.label)
        shown.append(
            {
                "image": thumbnail(picture),
                "id": picture.id,
                "label": picture.label,
                "of_own_label": f"{mistake.of_own_label:.1%}",
                "predicted": mistake.predicted,
                "probability": f"{mistake.probability:.1%}",
                "heat_maps": []
                if maps is None
                else [
                    {
                        "label": label,
                        "image": _heat_map(held.tensors.images[mistake.row], maps[..., labels.index(label)]),
                    }
                    for label in of_labels
                ],
            }
        )
    return {
        "split": held.split,
        "pictures": f"{scored['pictures']:,}",
        "wrong": f"{round(scored['pictures'] * (1 - scored['accuracy'])):,}",
        "mistakes": shown,
    }
