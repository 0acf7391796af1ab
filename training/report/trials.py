"""The report's section on robustness and cost."""

from collections.abc import Mapping
from typing import Any

from training.evaluation.interval import wilson
from training.pages.images import inline
from training.report.material import Content, Material
from training.report.robustness import changed_examples


def robustness(material: Material) -> Content:
    found: Mapping[str, Any] = material.metrics["robustness"]
    number, unchanged = found["pictures"], found["unchanged"]
    low, high = wilson(round(unchanged * number), number)
    examples = changed_examples(material.shown.tensors.images[0], material.preprocessing)
    return {
        "pictures": f"{number:,}",
        "split": found["split"],
        "unchanged": f"{unchanged:.1%}",
        "low": f"{low:.1%}",
        "high": f"{high:.1%}",
        "trials": [
            {
                "name": name,
                "steps": [
                    {
                        "image": inline(image),
                        "strength": _strength(step["strength"], trial["unit"]),
                        "accuracy": {"share": f"{step['accuracy']:.4f}", "text": f"{step['accuracy']:.1%}"},
                    }
                    for step, image in zip(trial["steps"], examples[name], strict=True)
                ],
            }
            for name, trial in found["changed"].items()
        ],
    }


def cost(material: Material) -> Content:
    found = material.metrics["cost"]
    sizes = next(iter(found["seconds_per_picture"].values()))
    return {
        "parameters": f"{found['parameters']:,}",
        "megabytes": f"{found['bytes'] / 1e6:.2f}",
        "fit_seconds": f"{material.metrics['fit_seconds']:.0f}",
        "threads": found["threads"],
        "head": ["time a picture", *(f"{size} at a time" for size in sizes)],
        "rows": [
            [engine, *(f"{value * 1e3:.3g} ms" for value in by_size.values())]
            for engine, by_size in found["seconds_per_picture"].items()
        ],
    }


def _strength(value: float, unit: str) -> str:
    if not unit:
        return "inverted"
    return f"{value:.0%} {unit}" if unit == "of the side" else f"{value:g} {unit}"
