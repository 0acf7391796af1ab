from dataclasses import replace

import pytest

from benchmarks.serving.results import FixedRate, Results
from benchmarks.serving.soak import Soak, SoakPoint
from benchmarks.serving.targets import OURS, Target, targets


def _target(results: Results, beginning: str) -> Target:
    return next(target for target in targets(results) if target.what.startswith(beginning))


def _soak(requests: int, growth_mb: float) -> Soak:
    points = (SoakPoint(50_000, 200.0, 6000.0, 0), SoakPoint(50_000 + requests, 200.0 + growth_mb, 6000.0, 0))
    return Soak(OURS, "mnist", 64, "today", "abc", points)


def test_a_ratio_is_taken_within_each_round_so_a_slower_machine_does_not_move_it(results: Results) -> None:
    target = _target(results, "MNIST, 64 connections")
    assert target.figures == pytest.approx((12.0, 12.0))
    assert target.reached


def test_the_best_peer_is_the_fastest_of_each_round(results: Results) -> None:
    assert _target(results, "… over the best peer").figure == pytest.approx(10.0)


def test_the_limit_is_of_the_same_round(results: Results) -> None:
    limit = 1 / (1 / 20000 + 1 / 10000)
    assert _target(results, "… of the limit").figures == pytest.approx((6000 / limit, 6000 / limit))


def test_a_round_without_its_counterpart_does_not_count(results: Results) -> None:
    tutorial = results.workloads[0].service("tutorial-2")
    assert tutorial is not None
    tutorial.samples.pop()
    assert len(_target(results, "MNIST, 64 connections").figures) == 1


def test_latency_is_held_against_bare_with_as_many_workers(results: Results) -> None:
    assert _target(results, "1 connection: p50 over bare-2").figure == pytest.approx(0.3)
    assert _target(results, "1 connection: p50 over bare-1").reached is None


def test_batches_count_by_their_pictures_and_their_better_connections(results: Results) -> None:
    assert _target(results, "/predict/batch").figure == pytest.approx(32 * 300 / 10000)


def test_an_upper_bound_is_missed_from_above(results: Results) -> None:
    assert _target(results, "Open loop at 80 %").reached is True
    assert _target(results, "… p99.9").reached is False


def test_a_rate_that_the_generator_could_not_send_is_no_measurement(results: Results) -> None:
    ours = results.workloads[0].service(OURS)
    assert ours is not None
    ours.fixed_rates = [FixedRate(0.8, capped=True, result=ours.fixed_rates[0].result)]
    target = _target(results, "Open loop at 80 %")
    assert target.reached is None
    assert "generator" in target.missing


def test_what_was_not_run_is_neither_reached_nor_missed(results: Results) -> None:
    target = _target(results, "MobileNetV2")
    assert (target.figure, target.reached) == (None, None)


def test_the_reason_of_our_own_failure_is_told(results: Results) -> None:
    ours = results.workloads[0].service(OURS)
    assert ours is not None
    ours.samples, ours.failure = [], "round 1: it ended"
    assert _target(results, "MNIST, 64 connections").missing == "round 1: it ended"


def test_precision_auto_needs_a_cpu_with_bf16(results: Results) -> None:
    assert "bf16" in _target(results, "precision=auto").missing
    results.machine = replace(results.machine, bf16=True)
    assert _target(results, "precision=auto").missing == "not in this run"


@pytest.mark.parametrize(
    ("soak", "reached"),
    [
        (None, None),
        (_soak(900_000, 0.0), None),
        (_soak(1_000_000, 1.0), True),
        (_soak(1_000_000, 9.0), False),
    ],
)
def test_memory_is_flat_only_over_a_whole_soak(results: Results, soak: Soak | None, reached: bool | None) -> None:
    results.soak = soak
    assert _target(results, "Memory growth").reached is reached


def test_idle_is_what_the_round_that_watched_it_saw(results: Results) -> None:
    assert _target(results, "Idle").figures == pytest.approx((0.002,))
