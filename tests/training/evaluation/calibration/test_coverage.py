import numpy as np
import pytest

from training.evaluation.calibration.coverage import risk_coverage, threshold_table
from training.evaluation.interval import wilson

CONFIDENCE = np.array([0.99, 0.95, 0.95, 0.7, 0.4])
RIGHT = np.array([True, True, False, True, False])


def test_a_threshold_answers_what_is_at_or_above_it() -> None:
    rows = {row["threshold"]: row for row in threshold_table(CONFIDENCE, RIGHT)}
    assert (rows[0.0]["answered"], rows[0.0]["coverage"], rows[0.0]["accuracy"]) == (5, 1.0, 0.6)
    assert (rows[0.95]["answered"], rows[0.95]["right"], rows[0.95]["coverage"]) == (3, 2, 0.6)
    assert rows[0.95]["accuracy"] == pytest.approx(2 / 3)


def test_a_threshold_that_nothing_reaches_has_no_accuracy() -> None:
    (row,) = [row for row in threshold_table(CONFIDENCE, RIGHT) if row["threshold"] == 0.999]
    assert (row["answered"], row["accuracy"], row["low"], row["high"]) == (0, None, None, None)


def test_wilson_s_interval_is_the_textbook_s() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I


def test_the_curve_answers_equally_sure_pictures_together() -> None:
    points = risk_coverage(CONFIDENCE, RIGHT)["points"]
    assert [(point["coverage"], point["threshold"], point["risk"]) for point in points] == [
        (0.2, 0.99, 0.0),
        (0.6, 0.95, pytest.approx(1 / 3)),
        (0.8, 0.7, 0.25),
        (1.0, 0.4, 0.4),
    ]


def test_the_area_is_the_mean_risk_and_its_excess_that_above_the_best_order() -> None:
    found = risk_coverage(CONFIDENCE, RIGHT)
    assert found["aurc"] == pytest.approx((0 + 1 / 3 + 1 / 3 + 0.25 + 0.4) / 5)
    assert found["excess_aurc"] == pytest.approx(found["aurc"] - (0 + 0 + 0 + 0.25 + 0.4) / 5)


def test_where_every_mistake_comes_last_there_is_no_excess() -> None:
    assert risk_coverage(np.array([0.9, 0.8, 0.6]), np.array([True, True, False]))["excess_aurc"] == pytest.approx(0)


def test_a_long_curve_has_at_most_101_points_and_ends_with_all() -> None:
    random = np.random.default_rng(0)
    points = risk_coverage(random.random(5000), random.random(5000) < 0.9)["points"]
    assert len(points) <= 101
    assert points[-1]["coverage"] == 1.0
