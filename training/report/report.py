"""Measure a trained model's robustness and cost, and write the report page."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.contract.bundle import Signature
from app.engines.engine import Engine
from training.progress import Reporter
from training.report.answers import class_maps_of_mistakes
from training.report.cost import cost
from training.report.material import Material
from training.report.page import report_page
from training.report.robustness import robustness


@dataclass(frozen=True)
class Report:
    """`metrics` is added to metrics.json; `page` becomes report.html."""

    metrics: Mapping[str, Any]
    page: str


def write_report(material: Material, *, folder: Path, engine: Engine, reporter: Reporter) -> Report:
    """Return the report on the SavedModel in `folder`, which `engine` runs."""
    shown = material.shown
    images, targets = shown.tensors.images, shown.tensors.targets
    found = {
        "robustness": {
            "split": shown.split,
            **robustness(engine, images, targets, material.preprocessing, reporter),
        },
        "cost": cost(
            folder,
            Signature.of(material.preprocessing, material.dataset.labels),
            engine,
            images,
            parameters=material.metrics["parameters"],
        ),
    }
    whole = replace(
        material, metrics={**material.metrics, **found}, class_maps=class_maps_of_mistakes(material, engine)
    )
    return Report(found, report_page(whole))
