"""The least probability at which answers are right as often as wished."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.sureness import least_minimum

SUREST = np.array([0.95, 0.9, 0.8, 0.7, 0.6], np.float32)
RIGHT = np.array([True, True, False, True, False])


@pytest.mark.parametrize(("min_precision", "minimum"), [(1.0, 0.9), (0.75, 0.7), (0.7, 0.7), (0.6, 0.6), (0.01, 0.6)])
def test_the_least_minimum_covers_as_many_as_it_can(min_precision: float, minimum: float) -> None:
    assert least_minimum(SUREST, RIGHT, min_precision) == minimum


def test_if_the_surest_answer_is_wrong_nothing_makes_all_of_them_right() -> None:
    assert least_minimum(SUREST, ~RIGHT & (SUREST < 0.95), 1.0) is None
    assert least_minimum(np.empty(0, np.float32), np.empty(0, np.bool_), 0.5) is None


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50), st.floats(0.01, 1))
def test_no_lower_probability_is_enough(answers: list[tuple[float, bool]], min_precision: float) -> None:
    most_confident = np.array([probability for probability, _ in answers], np.float32)
    right = np.array([is_right for _, is_right in answers])

    def is_enough(minimum: float) -> bool:
        answered = right[most_confident >= np.float32(minimum)]
        return bool(len(answered) and answered.sum() >= min_precision * len(answered))

    found = least_minimum(most_confident, right, min_precision)
    assert found is None or is_enough(found)
    lower = [round(float(each), 4) for each in most_confident if found is None or round(float(each), 4) < found]
    assert not any(map(is_enough, lower))
