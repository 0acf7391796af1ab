"""Counts read as people write them."""

import pytest

from app.system.wording import count_of


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (0, "epoch", "0 epochs"),
        (1, "epoch", "1 epoch"),
        (1000, "test picture", "1,000 test pictures"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, noun: str, shown: str) -> None:
    assert count_of(number, noun) == shown
