import numpy as np
import pytest

from training.evaluation.compare.paired import Paired


def test_the_test_is_mcnemar_s_exact_one() -> None:
    assert Paired(both=9951, only_a=18, only_b=31, neither=0).p_value == pytest.approx(0.0854, abs=1e-4)
    assert Paired(both=0, only_a=1, only_b=9, neither=0).p_value == pytest.approx(2 * (1 + 10) / 2**10)


def test_a_difference_within_chance_is_said_to_be_so() -> None:
    paired = Paired(both=9951, only_a=18, only_b=31, neither=0)
    assert paired.verdict("a:1", "b:1") == (
        "b:1 is right on 31 that a:1 has wrong, a:1 on 18 that b:1 has wrong: p = 0.085; 10,000 pictures cannot tell "
        "them apart."
    )
    low, high = paired.interval()
    assert low < 0 < paired.difference < high


def test_a_real_difference_names_the_better() -> None:
    paired = Paired(both=900, only_a=60, only_b=20, neither=20)
    assert paired.is_real
    assert paired.verdict("a:1", "b:1").endswith("a:1 is better, and 1,000 pictures are enough to say so.")
    assert paired.interval()[1] < 0


def test_models_that_answer_alike_cannot_be_told_apart() -> None:
    paired = Paired(both=90, only_a=0, only_b=0, neither=10)
    assert (paired.p_value, paired.difference) == (1.0, 0.0)


def test_pictures_are_counted_by_who_has_them_right() -> None:
    a, b = np.array([True, True, False, False, True]), np.array([True, False, True, False, True])
    assert Paired.of(a, b) == Paired(both=2, only_a=1, only_b=1, neither=1)


def test_equal_models_are_called_different_once_in_twenty_times_at_most() -> None:
    random = np.random.default_rng(0)
    rounds = [Paired.of(random.random(500) < 0.9, random.random(500) < 0.9) for _ in range(300)]
    assert sum(paired.is_real for paired in rounds) <= 0.07 * len(rounds)
    assert sum(paired.interval()[0] <= 0 <= paired.interval()[1] for paired in rounds) >= 0.92 * len(rounds)
