"""The plan is never dearer than any other way through what waits."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.batch_plan import BatchPlan, Step

COSTS = st.dictionaries(st.integers(2, 12), st.integers(1, 50), max_size=4).flatmap(
    lambda larger: st.integers(1, 50).map(lambda one: {1: float(one), **{k: float(v) for k, v in larger.items()}})
)


def cost_of(plan: BatchPlan, seconds: dict[int, float], waiting: int) -> float:
    """Follow the plan until nothing waits."""
    total = 0.0
    while waiting:
        step = plan.next_step(waiting)
        assert 1 <= step.count <= min(step.size, waiting)
        total += seconds[step.size]
        waiting -= step.count
    return total


@given(COSTS, st.integers(1, 24))
def test_no_other_sequence_of_batches_is_cheaper(seconds: dict[int, float], waiting: int) -> None:
    @cache
    def cheapest(left: int) -> float:
        if left <= 0:
            return 0.0
        return min(cost + cheapest(left - size) for size, cost in seconds.items())

    within = min(waiting, max(seconds))  # beyond the largest batch, the plan looks at that many
    assert cost_of(BatchPlan(seconds), seconds, within) == cheapest(within)


@given(COSTS, st.integers(1, 100))
def test_every_step_takes_something_and_fits_its_batch(seconds: dict[int, float], waiting: int) -> None:
    step = BatchPlan(seconds).next_step(waiting)
    assert step.size in seconds
    assert 1 <= step.count <= min(step.size, waiting)


@given(COSTS, st.data())
def test_size_of_is_the_smallest_that_holds_them(seconds: dict[int, float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, max(seconds)))
    size = BatchPlan(seconds).size_of(count)
    assert size >= count
    assert not any(count <= other < size for other in seconds)


def test_thirteen_run_as_eight_four_and_one_where_padding_costs_more() -> None:
    plan = BatchPlan({1: 1, 4: 2, 8: 4, 16: 9})
    assert [plan.next_step(waiting) for waiting in (13, 5, 1)] == [Step(8, 8), Step(4, 4), Step(1, 1)]


def test_thirteen_are_padded_to_sixteen_where_that_is_cheaper() -> None:
    assert BatchPlan({1: 1, 4: 2, 8: 3, 16: 4}).next_step(13) == Step(13, 16)


def test_of_two_ways_that_cost_the_same_the_one_that_answers_more_at_once_is_taken() -> None:
    assert BatchPlan({1: 1, 2: 2, 4: 4}).next_step(4) == Step(4, 4)


def test_more_than_the_largest_batch_begins_with_a_full_one_of_the_best_size() -> None:
    assert BatchPlan({1: 1, 8: 2}).next_step(1000) == Step(8, 8)


def test_without_measured_costs_a_batch_is_padded_to_the_next_power_of_two() -> None:
    assert BatchPlan.of_powers(1).sizes == [1]
    assert BatchPlan.of_powers(8).sizes == [1, 2, 4, 8]
    assert BatchPlan.of_powers(20).sizes == [1, 2, 4, 8, 16, 20]
    plan = BatchPlan.of_powers(8)
    assert [plan.next_step(waiting) for waiting in (1, 3, 5, 9)] == [Step(1, 1), Step(3, 4), Step(5, 8), Step(8, 8)]


@pytest.mark.parametrize("seconds", [{}, {0: 1.0}, {-1: 1.0, 4: 2.0}])
def test_a_plan_without_usable_sizes_is_refused(seconds: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="batch sizes from 1 up"):
        BatchPlan(seconds)
