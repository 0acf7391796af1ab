"""What the commands print of scores can be read on a terminal of 80 columns."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from training.evaluation.score import ClassScore, Scores
from training.evaluation.tables import print_scores

LONG = [f"Ankle boots of {material}, {colour}" for material in ("leather", "suede") for colour in ("black", "brown")]


def shown(labels: list[str], confusion: NDArray[np.int64]) -> str:
    by_class = {label: ClassScore(0.5, 0.5, int(row.sum())) for label, row in zip(labels, confusion, strict=True)}
    console = Console(file=io.StringIO(), width=80, soft_wrap=True, highlight=False)
    print_scores(Scores(0.5, 1.0, by_class, confusion), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines() if line[0] in "┏┃┡│└") <= 80
    assert "…" not in text
    return text


def counts(classes: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, 1000, (classes, classes))


def test_short_names_stand_above_the_columns_of_the_confusion() -> None:
    text = shown([str(digit) for digit in range(10)], counts(10) // 100)
    assert "a column for each predicted one." in text
    assert "┃   ┃ 0 ┃ 1 ┃ 2 ┃" in text


@pytest.mark.parametrize("classes", [4, 8])
def test_long_names_are_whole_and_the_columns_have_their_numbers(classes: int) -> None:
    labels = [f"{label} {number}" for number in (1, 2) for label in LONG][:classes]
    text = shown(labels, counts(classes))
    assert "by the number of its row." in text
    for number, label in enumerate(labels, 1):
        assert label in text
        assert f"│ {number} Ankle" in text


def test_more_classes_than_columns_are_listed_by_their_commonest_mistakes() -> None:
    labels = [f"{label} {number}" for number in range(10) for label in LONG]
    confusion = np.eye(40, dtype=np.int64) * 100
    confusion[3, 17] = 9
    text = shown(labels, confusion)
    assert "the commonest mistakes" in text
    (row,) = [line for line in text.splitlines() if line.endswith("│ 9        │")]
    assert labels[3] in row
    assert labels[17] in row


def test_a_word_that_is_longer_than_the_terminal_is_folded() -> None:
    labels = ["a" * 100 + str(number) for number in range(3)]
    assert shown(labels, counts(3)).replace("│", "").count("a") >= 600
