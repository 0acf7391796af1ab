"""Folds measured through `fit`, and the table that is made of them; on small data."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.errors import BenchmarkError
from benchmarks.training import signs
from benchmarks.training.signs import (
    AT_RANDOM,
    BY_PERSON,
    PUBLISHED,
    FoldResult,
    check_published,
    markdown,
    measure_folds,
)
from training.data.folds import Fold
from training.model.presets import preset_named
from training.options import with_recipe


def result(number: int, right: int, wrong: int) -> FoldResult:
    confusion = np.array([[right, 0], [wrong, 10]], np.int64)
    return FoldResult(
        Fold(number, 2), frozenset({f"{number}.png"}), ("a", "b"), confusion, 1234, 60.0 * number, 100.0 * number
    )


def test_every_picture_is_tested_once_through_fit() -> None:
    preset = with_recipe(preset_named("seed"), {"epochs": 1})
    results = list(measure_folds("digits", preset, count=2, seed=0, group_by=None))
    assert sum(len(each.tested) for each in results) == 1797
    assert len(results[0].tested | results[1].tested) == 1797
    assert [int(each.confusion.sum()) for each in results] == [len(each.tested) for each in results]
    assert {each.parameters for each in results} == {121_930}


def test_the_table_pools_the_folds_and_says_what_a_random_split_gains() -> None:
    found = {
        ("photos", BY_PERSON): [result(1, 8, 2), result(2, 10, 0)],
        ("photos", AT_RANDOM): [result(1, 10, 0), result(2, 10, 0)],
        ("seed", BY_PERSON): [result(1, 5, 5)],
    }
    written = markdown(found, ["a note"])
    row = (
        "| photos | by person | 2 of 2 | 40 | 95.00% | 83.50% to 98.62% | b: 90.91% | 1,234 | 90 (at most 120) | 150 |"
    )
    assert row in written
    assert "| seed | by person | 1 of 2 | 20 |" in written
    assert "| photos | at random | 100.00% | 100.00% |" in written
    assert written.endswith("\n- photos: a random split looks +5.00 points better\n- a note\n")


def test_the_published_folds_share_all_pictures_of_sign_digits_nearly_equally() -> None:
    with PUBLISHED.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["id"] for row in rows}) == 2062
    sizes = Counter(row["fold"] for row in rows)
    assert set(sizes) == set("12345")
    assert max(sizes.values()) - min(sizes.values()) < 10
    assert set(Counter((row["id"][0], row["fold"]) for row in rows).values()) <= set(range(38, 46))


def test_folds_other_than_the_published_ones_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "PUBLISHED", tmp_path / "folds.csv")
    (tmp_path / "folds.csv").write_text("id,fold\n1.png,1\n2.png,2\n")
    check_published([result(2, 1, 1), result(1, 1, 1)])
    (tmp_path / "folds.csv").write_text("id,fold\n1.png,2\n2.png,1\n")
    with pytest.raises(BenchmarkError, match=r"not those of folds\.csv"):
        check_published([result(1, 1, 1), result(2, 1, 1)])
