import pytest

from benchmarks.harness.contestant import contestants
from benchmarks.serving.in_process import pipelines
from benchmarks.serving.schedule import order


def _names(number: int, rounds: int = 3) -> list[str]:
    return [turn.name for turn in order(contestants(), pipelines(), number=number, rounds=rounds)]


@pytest.mark.parametrize("number", range(3))
def test_every_contestant_has_one_turn_in_every_round(number: int) -> None:
    names = _names(number)
    assert len(names) == len(set(names))
    assert {each.name for each in contestants()} <= set(names)


@pytest.mark.parametrize("number", range(3))
def test_ours_stands_between_its_ceilings(number: int) -> None:
    names = _names(number)
    ceilings = sorted([names.index("in-process-openvino-f32"), names.index("bare-2")])
    for name in ("ours-openvino-f32-1", "ours-openvino-f32-2"):
        assert ceilings[0] < names.index(name) < ceilings[1]
    assert ceilings[1] - ceilings[0] <= 6


def test_rounds_begin_with_different_contestants() -> None:
    assert len({_names(number)[0] for number in range(3)}) == 3


def test_tensorflow_in_process_is_measured_once() -> None:
    assert ["in-process-tensorflow-f32" in _names(number) for number in range(3)] == [True, False, False]


def test_one_contestant_alone_has_all_rounds() -> None:
    alone = contestants()[:1]
    assert [order(alone, [], number=number, rounds=3) for number in range(3)] == [alone] * 3
