"""Print scores to the terminal. Class names are never cut off, however narrow the terminal is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.system.wording import count_of
from training.evaluation.score import Scores

_MISTAKES_SHOWN = 20
_NARROWEST_NAME = 16
"""Minimum width of a name in characters; a longer name wraps."""
_FRAME = 3
"""Characters around each cell."""


def name_table(name: str, *columns: str) -> Table:
    """Return a table with a first column of names, which wrap and are never cut off; figures are never wrapped."""
    table = Table()
    table.add_column(name, overflow="fold")
    for column in columns:
        table.add_column(escape(column), no_wrap=True)
    return table


def print_scores(scores: Scores, console: Console) -> None:
    """Print the accuracy, the macro recall, each class's precision and recall, and the confusion matrix."""
    pictures = int(scores.confusion.sum())
    console.print(
        f"accuracy {scores.accuracy:.4%} of {count_of(pictures, 'picture')}, macro recall {scores.macro_recall:.2%}, "
        f"loss {scores.loss:.4f}"
    )
    table = name_table("class", "precision", "recall", "pictures")
    for label, row in scores.by_class.items():
        shown = ["never" if value is None else f"{value:.2%}" for value in (row.precision, row.recall)]
        table.add_row(escape(label), *shown, f"{row.pictures:,}")
    console.print(table)
    _print_confusion(list(scores.by_class), scores.confusion, console)


def _print_confusion(labels: Sequence[str], confusion: NDArray[np.int64], console: Console) -> None:
    """Print the confusion matrix with the classes' names above its columns, or their numbers, as the width allows.

    If neither fits, print the commonest mistakes.
    """
    cells = [[str(count) if count else "·" for count in row] for row in confusion.tolist()]
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    numbered = [f"{number} {label}" for number, label in zip(numbers, labels, strict=True)]
    title = "Confusion: a row for each true class, a column for each predicted one"
    for columns, names, note in ((labels, labels, "."), (numbers, numbered, ", by the number of its row.")):
        width = sum(max(map(len, column)) + _FRAME for column in zip(columns, *cells, strict=True))
        if width + _FRAME + 1 + min(_NARROWEST_NAME, max(map(len, names))) <= console.width:
            table = name_table("", *columns)
            for name, row in zip(names, cells, strict=True):
                table.add_row(escape(name), *row)
            console.print(title + note, table, sep="\n")
            return
    _print_mistakes(labels, confusion, console)


def _print_mistakes(labels: Sequence[str], confusion: NDArray[np.int64], console: Console) -> None:
    mistakes = confusion * ~np.eye(len(labels), dtype=bool)
    commonest = np.argsort(-mistakes, axis=None, kind="stable")[: np.count_nonzero(mistakes)]
    if not len(commonest):
        return
    table = Table("class", "is taken for", "pictures")
    for column in table.columns[:2]:
        column.overflow = "fold"
    for row, column_index in zip(*np.unravel_index(commonest[:_MISTAKES_SHOWN], mistakes.shape), strict=True):
        table.add_row(escape(labels[row]), escape(labels[column_index]), f"{mistakes[row, column_index]:,}")
    console.print("Confusion: the commonest mistakes.")
    console.print(table)
    rest = len(commonest) - _MISTAKES_SHOWN
    if rest > 0:
        console.print(f"{rest:,} more; --json has all.")
