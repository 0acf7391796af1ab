"""Print a comparison to the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.evaluation.compare.comparison import Comparison
from training.evaluation.tables import name_table

_SHOWN = 10


def print_comparison(found: Comparison, console: Console) -> None:
    """Print both sides' figures, the verdict, and the pictures on which they disagree most."""
    shown = found.as_dict()
    sides = (shown["a"], shown["b"])
    table = name_table("", found.a.name, found.b.name)
    for name, row in _rows(shown).items():
        table.add_row(escape(name), *row)
    console.print(table)
    difference = shown["difference"]
    console.print(shown["verdict"], markup=False)
    console.print(
        f"The accuracy of {found.b.name} minus that of {found.a.name} is {_points(difference['value'])} points; 95 % "
        f"interval {_points(difference['low'])} to {_points(difference['high'])}.",
        markup=False,
    )
    for side, name in zip(sides, (found.a.name, found.b.name), strict=True):
        if side["learned"]:
            console.print(
                f"{name} was trained on {side['learned']:,} of these pictures: its figures are too high, and this "
                "comparison favours it.",
                markup=False,
            )
    _print_disagreements(shown["disagreements"][:_SHOWN], found, console)


def _rows(shown: Mapping[str, Any]) -> dict[str, list[str]]:
    sides = (shown["a"], shown["b"])
    rows = {
        "accuracy": [f"{side['accuracy']:.2%}" for side in sides],
        "  95 % interval": [f"{side['low']:.2%} to {side['high']:.2%}" for side in sides],
        "macro recall": [f"{side['macro_recall']:.2%}" for side in sides],
    }
    for label in shown["a"]["recall"]:
        recalls = [side["recall"][label] for side in sides]
        rows[f"recall of {label}"] = ["never occurs" if recall is None else f"{recall:.2%}" for recall in recalls]
    rows |= {
        "negative log-likelihood": [f"{side['nll']:.4f}" for side in sides],
        "calibration error": [f"{side['debiased']['error']:.2%}" for side in sides],
        "  interval": [f"{side['debiased']['low']:.2%} to {side['debiased']['high']:.2%}" for side in sides],
        "parameters": ["unknown" if side["parameters"] is None else f"{side['parameters']:,}" for side in sides],
        "bytes of the model": [f"{side['model_bytes']:,}" for side in sides],
        "ms a picture, alone": [f"{side['ms_alone']:.2f} on {side['engine']}" for side in sides],
        "ms a picture, in batches": [f"{side['ms_in_batches']:.2f}" for side in sides],
    }
    return rows


def _print_disagreements(rows: list[dict[str, Any]], found: Comparison, console: Console) -> None:
    if not rows:
        console.print("They have the same pictures right.")
        return
    table = Table("only one is right", "class", "right", "the other one's answer")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        right, wrong = (row[side] for side in (("a", "b") if row["right"] == "a" else ("b", "a")))
        name = found.a.name if row["right"] == "a" else found.b.name
        shown = (
            row["picture"],
            row["label"],
            f"{name} ({right['probability']:.0%})",
            f"{wrong['label']} ({wrong['probability']:.0%})",
        )
        table.add_row(*map(escape, shown))
    console.print(table)


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
