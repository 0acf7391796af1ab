"""A model card is Markdown that shows labels as they are."""

from app.contract.preprocessing import PreprocessingSpec
from training.bundling.card import model_card

HOSTILE = ["a|b", "<script>", "*bold*", "`code`", "[link](x)", "two\nlines", "back\\slash"]


def card_of(labels: list[str]) -> str:
    by_class = {label: {"precision": 1.0, "recall": 0.5, "pictures": 2} for label in labels}
    scores = {"accuracy": 0.5, "macro_recall": 0.4375, "loss": 1.0, "pictures": 2, "by_class": by_class}
    calibration = {"method": "none", "reason": "too few pictures", "test": None}
    return model_card(
        name="m",
        version=1,
        labels=labels,
        preprocessing=PreprocessingSpec(height=8, width=8, colour="grey"),
        command="python -m training fit",
        data="a folder",
        counts={"train": {}, "validation": {}, "test": {}},
        metrics={
            **dict.fromkeys(("train", "validation", "test"), scores),
            "calibration": calibration,
            "parameters": 1,
            "fit_seconds": 1.0,
        },
        about=None,
    )


def test_a_label_neither_ends_a_cell_nor_becomes_markup() -> None:
    card = card_of(HOSTILE)
    rows = [line for line in card.splitlines() if line.endswith("| 100.00% | 50.00% | 2 |")]
    assert len(rows) == len(HOSTILE)
    assert r"| a\|b | 100.00%" in card
    assert r"a\|b, \<script\>, \*bold\*, \`code\`, \[link\](x), two lines, back\\slash." in card


def test_macro_recall_stands_beside_the_accuracy() -> None:
    card = card_of(["a", "b"])
    assert "| pictures | accuracy | macro recall | loss |" in card
    assert "| test (2) | 50.00% | 43.75% | 1.0000 |" in card


def test_an_ordinary_label_is_as_it_was() -> None:
    assert "| t-shirt_2 (red) | 100.00%" in card_of(["t-shirt_2 (red)", "hat"])
