"""`python -m training sweep` as its users meet it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from app.contract.bundle import open_bundle
from tests.training.fit_options import fit_options
from training.__main__ import cli
from training.fitting.fit import fit as train
from training.model.presets import preset_named
from training.options import with_recipe
from training.progress import Reporter
from training.sweep.candidates import Candidate
from training.sweep.halving import Sweep, run_trials

TRIES = "--try seed@0.001 --try seed@0.0000001"


def sweep(store: Path, arguments: str) -> Result:
    return CliRunner().invoke(cli, f"sweep --data digits --name d --model-store {store} {arguments}")


@pytest.mark.slow
def test_the_better_rate_wins_and_alone_is_published_and_tested(tmp_path: Path) -> None:
    done = sweep(tmp_path, f"{TRIES} --budget 6s")
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["1"]
    training = open_bundle(tmp_path / "d" / "1").manifest.training
    assert isinstance(training["recipe"], dict)
    assert training["recipe"]["learning_rate"] == 0.001
    assert "fit --data digits" in str(training["command"])
    assert done.stderr.count("reading test pictures") == 1
    table = [line for line in done.stdout.splitlines() if "seed@" in line]
    assert "seed@0.001" in table[0]
    assert "seed@0.0000001" in table[1]
    assert "macro recall" in done.stdout
    assert table[0].count("%") == 2


@pytest.mark.slow
def test_a_candidate_that_diverges_is_no_hindrance(tmp_path: Path) -> None:
    done = sweep(tmp_path, "--try seed --try seed@3e38 --budget 1s")
    assert done.exit_code == 0, done.output
    assert "failed" in done.stdout
    assert (tmp_path / "d" / "1").is_dir()


def test_what_is_known_when_it_is_stopped_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([False, True])

    def fit(*arguments: object, **options: object) -> object:
        if next(calls):
            raise KeyboardInterrupt
        return train(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("training.fitting.resumable_training.fit", fit)
    done = sweep(tmp_path, TRIES)
    assert done.exit_code == 130
    assert "seed@0.001" in done.stdout
    assert "not tried" in done.stdout
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--try seed", "two different candidates"),
        ("--try seed --try seed", "different candidates"),
        ("--try seed --try resnet", "no preset 'resnet'"),
        ("--try seed --try seed@fast", "seed@fast"),
        ("--try seed --try quick --effort quick", "--effort and --try both say what to try"),
        (f"{TRIES} --budget 10", "--budget 10 is not a time"),
        (f"{TRIES} --validation 0", "--validation"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: str, words: str) -> None:
    done = sweep(tmp_path, arguments)
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line


class Bench:
    """Trials that take no time but on a clock of their own: `accuracy` after so many epochs, `seconds` for each."""

    def __init__(self, candidates: Mapping[str, tuple[str, float, Mapping[int, float]]]) -> None:
        self.now = 0.0
        self.trials: list[tuple[str, int]] = []
        self._given = candidates
        self.sweep = Sweep([Candidate(name, preset_named(preset)) for name, (preset, *_) in candidates.items()], 0.0)

    def monotonic(self) -> float:
        return self.now

    def attempt(self, candidate: Candidate, epochs: int, *others: object) -> None:
        _, seconds, accuracies = self._given[candidate.name]
        self.now += seconds * epochs
        self.trials.append((candidate.name, epochs))
        accuracy = accuracies[max(known for known in accuracies if known <= epochs)]
        candidate.epochs, candidate.seconds_per_epoch = epochs, seconds
        candidate.right = np.arange(1000) < round(1000 * accuracy)


@pytest.fixture
def run_on_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Bench, float], list[str]]:
    def run(bench: Bench, budget: float) -> list[str]:
        monkeypatch.setattr("training.sweep.halving.time", bench)
        monkeypatch.setattr("training.sweep.halving._try", bench.attempt)
        options = fit_options(tmp_path, preset_named("quick"))
        validated = replace(options, preset=with_recipe(options.preset, {"validation": 0.1}))
        run_trials(bench.sweep, validated, budget=budget, reporter=Reporter())
        return [candidate.name for candidate in bench.sweep.ranking()]

    return run


def test_one_that_is_slower_and_better_wins_where_there_is_time(
    run_on_bench: Callable[[Bench, float], list[str]],
) -> None:
    candidates = {
        "quick": ("quick", 3.0, {1: 0.990, 2: 0.993}),  # has two epochs
        "slow": ("compact", 10.0, {1: 0.95, 3: 0.98, 9: 0.99, 27: 0.996}),
    }
    assert run_on_bench(Bench(candidates), 60.0) == ["quick", "slow"]
    bench = Bench(candidates)
    assert run_on_bench(bench, 1200.0) == ["slow", "quick"]
    assert bench.trials == [("quick", 1), ("slow", 1), ("quick", 2), ("slow", 3), ("slow", 9), ("slow", 27)]
    assert bench.now <= 600  # the other half is for training the best


def test_the_better_half_goes_on_and_the_last_one_needs_no_trial(
    run_on_bench: Callable[[Bench, float], list[str]],
) -> None:
    rates = {name: ("seed", 1.0, {1: share}) for name, share in zip("abcd", (0.9, 0.8, 0.7, 0.6), strict=True)}
    bench = Bench(rates)
    assert run_on_bench(bench, 1000.0) == ["a", "b", "c", "d"]
    assert bench.trials[4:] == [("a", 3), ("b", 3), ("c", 3), ("d", 3), ("a", 9), ("b", 9)]


def test_the_choice_has_all_of_its_epochs_before_the_others_are_tried(
    run_on_bench: Callable[[Bench, float], list[str]],
) -> None:
    candidates = {
        "choice": ("quick", 3.0, {2: 0.993}),
        "slow": ("compact", 10.0, {1: 0.95, 3: 0.98, 9: 0.99}),
        "plain": ("seed", 1.0, {1: 0.9}),
    }
    bench = Bench(candidates)
    bench.sweep.choice = bench.sweep.candidates[0]
    run_on_bench(bench, 1000.0)
    assert bench.trials == [("choice", 2), ("slow", 1), ("plain", 1), ("slow", 3), ("plain", 10)]


def test_the_table_says_what_the_pictures_cannot_tell_apart() -> None:
    def tried(name: str, right: NDArray[np.bool_] | None) -> Candidate:
        return Candidate(name, preset_named("seed"), right=right)

    found = Sweep([tried("a", np.arange(100) < 50), tried("b", np.arange(100) < 90), tried("c", None)])
    assert [candidate.name for candidate in found.ranking()] == ["b", "a"]
    assert [found.p_value(candidate) for candidate in found.ranking()] == [None, pytest.approx(2 / 2**40)]
