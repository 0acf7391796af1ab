import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import softmax

from training.evaluation.calibration.figures import before_and_after, figures

LOGITS = np.random.default_rng(0).normal(0, 2, (400, 4))
PROBABILITIES = softmax(LOGITS, axis=1)
TARGETS = np.array([np.random.default_rng(row).choice(4, p=PROBABILITIES[row]) for row in range(400)])


def test_likelihood_and_brier_score_are_the_textbook_s() -> None:
    found = figures(PROBABILITIES, TARGETS)
    assert found["nll"] == pytest.approx(-np.log(PROBABILITIES[np.arange(400), TARGETS]).mean())
    assert found["brier"] == pytest.approx(((PROBABILITIES - np.eye(4)[TARGETS]) ** 2).sum(axis=1).mean())
    assert found["accuracy"] == (PROBABILITIES.argmax(axis=1) == TARGETS).mean()


def test_reliability_bins_hold_every_picture_and_a_calibrated_model_is_in_its_bands() -> None:
    rows = figures(PROBABILITIES, TARGETS)["reliability"]
    assert sum(row["pictures"] for row in rows) == 400
    assert all(row["from"] <= row["confidence"] <= row["to"] for row in rows)
    assert all(first["to"] <= second["from"] for first, second in pairwise(rows))
    assert sum(row["low"] <= row["accuracy"] <= row["high"] for row in rows) >= len(rows) - 2


def test_before_and_after_differ_by_the_temperature_alone() -> None:
    served = softmax(LOGITS / 3, axis=1).astype(np.float32)
    found = before_and_after(served, TARGETS, temperature=3.0)
    assert found["before"]["nll"] == pytest.approx(figures(PROBABILITIES, TARGETS)["nll"], abs=1e-6)
    assert found["before"]["accuracy"] == found["after"]["accuracy"]
    assert found["after"]["debiased"]["low"] > 0
    assert found["before"]["debiased"]["low"] == 0


def test_without_a_temperature_there_is_no_before() -> None:
    assert before_and_after(PROBABILITIES.astype(np.float32), TARGETS, temperature=1.0)["before"] is None


def test_the_group_with_overconfident_answers_comes_first_and_is_outside_its_band() -> None:
    groups = [None if row % 50 == 0 else f"person {row % 8}" for row in range(400)]
    targets = np.where([group == "person 3" for group in groups], (PROBABILITIES.argmax(axis=1) + 1) % 4, TARGETS)
    rows = figures(PROBABILITIES, targets, groups)["groups"]
    assert len(rows) == 8
    assert sum(row["pictures"] for row in rows) == 392
    assert rows[0]["group"] == "person 3"
    assert rows[0]["accuracy"] == 0 < rows[0]["low"]


def test_pictures_of_nobody_have_no_groups() -> None:
    assert figures(PROBABILITIES, TARGETS, [None] * 400)["groups"] is None


def test_a_certain_mistake_has_a_finite_likelihood_and_all_of_it_is_json() -> None:
    found = figures(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 0]))
    json.dumps(found, allow_nan=False)
