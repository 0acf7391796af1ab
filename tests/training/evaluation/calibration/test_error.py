"""The calibration error against models whose true error is known."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from training.evaluation.calibration.bins import Bins
from training.evaluation.calibration.error import BINS, DebiasedError, debiased_error, plain_error

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SAMPLES = 40


def confidences(random: np.random.Generator, count: int, *, margin: float) -> Floats:
    """Return confidences of two-class logits that are `margin` apart on average."""
    sure: Floats = 1 / (1 + np.exp(-np.abs(random.normal(margin, margin / 2, count))))
    return sure


def at_temperature(confidence: Floats, temperature: float) -> Floats:
    """Return how often such answers are right where the model's true temperature is this."""
    accuracy: Floats = expit(logit(confidence) / temperature)
    return accuracy


@cache
def samples(*, count: int, margin: float, temperature: float) -> list[tuple[DebiasedError, float, float]]:
    """Return, for samples of `count` pictures, the estimate, the plug-in error and the true one."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(_SAMPLES):
        confidence = np.sort(confidences(random, count, margin=margin))
        accuracy = at_temperature(confidence, temperature)
        right = random.random(count) < accuracy
        bins = Bins.of_equal_mass(confidence, right, count=BINS)
        true = [abs(part.mean()) for part in np.array_split(confidence - accuracy, BINS)]
        truth = 0.0 if temperature == 1 else float(bins.mean_of(np.array(true)))
        found.append((debiased_error(confidence, right, draws=100), float(bins.mean_gap(bins.accuracy)), truth))
    return found


@pytest.mark.parametrize(("count", "margin"), [(300, 3.0), (2000, 12.0)])
def test_the_interval_of_a_calibrated_model_covers_0(count: int, margin: float) -> None:
    found = samples(count=count, margin=margin, temperature=1.0)
    assert sum(error.low == 0 for error, _, _ in found) >= 0.9 * _SAMPLES  # 97.5 % are expected


@pytest.mark.parametrize(
    ("count", "margin", "temperature"), [(300, 3.0, 2.5), (2000, 3.0, 1.5), (2000, 3.0, 2.5), (2000, 3.0, 0.7)]
)
def test_the_interval_of_a_miscalibrated_model_covers_its_error(count: int, margin: float, temperature: float) -> None:
    found = samples(count=count, margin=margin, temperature=temperature)
    assert sum(error.low <= truth <= error.high for error, _, truth in found) >= 0.8 * _SAMPLES  # 95 % are expected


def test_a_model_that_is_far_too_sure_is_told_from_a_calibrated_one() -> None:
    found = samples(count=2000, margin=3.0, temperature=2.5)
    assert all(error.low > 0 for error, _, _ in found)


def test_chance_is_not_taken_for_error() -> None:
    found = samples(count=300, margin=3.0, temperature=1.0)
    plain = np.median([plug_in for _, plug_in, _ in found])
    assert plain > 0.03
    assert sum(error.error == 0 for error, _, _ in found) >= 0.3 * _SAMPLES  # half of them are expected
    assert abs(np.mean([error.l2_squared for error, _, _ in found])) < 0.25 * plain**2


def test_a_true_error_is_found_without_bias() -> None:
    found = samples(count=2000, margin=3.0, temperature=1.5)
    assert np.median([error.error - truth for error, _, truth in found]) == pytest.approx(0, abs=0.004)


def test_twenty_sure_and_right_answers_do_not_prove_that_there_are_no_mistakes() -> None:
    error = debiased_error(np.full(20, 1.0), np.full(20, True))
    assert (error.error, error.low) == (0, 0)
    assert 0.05 < error.high < 0.3  # the exact interval of 0 mistakes in 20 ends at 0.17


def test_one_picture_has_an_interval() -> None:
    error = debiased_error(np.array([0.9]), np.array([False]))
    assert 0 <= error.low <= error.error <= error.high <= 1


def test_the_plain_error_is_the_mean_gap_over_bins_of_equal_width() -> None:
    confidence = np.array([0.91, 0.92, 0.55, 0.52])
    right = np.array([True, False, True, True])
    gaps = [(0.915 - 0.5) * 2, (1 - 0.55), (1 - 0.52)]  # 0.52 and 0.55 lie on either side of 8 / 15
    assert plain_error(confidence, right).value == pytest.approx(sum(gaps) / 4)


def test_what_a_calibrated_model_would_show_is_what_one_shows() -> None:
    random = np.random.default_rng(0)
    found = []
    for _ in range(_SAMPLES):
        confidence = confidences(random, 1000, margin=8.0)
        found.append(plain_error(confidence, random.random(1000) < confidence))
    mean = np.mean([plain.calibrated_mean for plain in found])
    assert np.mean([plain.value for plain in found]) == pytest.approx(mean, rel=0.15)
    assert sum(plain.value > plain.calibrated_p95 for plain in found) <= 0.15 * _SAMPLES  # 5 % are expected


def test_the_order_of_the_pictures_does_not_matter() -> None:
    random = np.random.default_rng(0)
    confidence = confidences(random, 500, margin=3.0)
    right = random.random(500) < confidence
    order = random.permutation(500)
    first, second = debiased_error(confidence, right), debiased_error(confidence[order], right[order])
    assert second.as_dict() == pytest.approx(first.as_dict())
