"""`python -m training sweep` as its users meet it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from app.contract.bundle import open_bundle
from training.__main__ import cli
from training.fit import fit as train
from training.presets import preset_named
from training.sweep.halving import Candidate, Sweep

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

    monkeypatch.setattr("training.sweep.halving.fit", fit)
    done = sweep(tmp_path, TRIES)
    assert done.exit_code == 130
    assert "seed@0.001" in done.stdout
    assert "not tried" in done.stdout
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--try seed", "two candidates"),
        ("--try seed --try seed", "each once"),
        ("--try seed --try resnet", "no preset 'resnet'"),
        ("--try seed --try seed@fast", "seed@fast"),
        (f"{TRIES} --budget 10", "--budget 10 is not a time"),
        (f"{TRIES} --validation 0", "--validation"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: str, words: str) -> None:
    done = sweep(tmp_path, arguments)
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line


def tried(name: str, epochs: int, right: NDArray[np.bool_] | None) -> Candidate:
    return Candidate(name, preset_named("seed"), epochs=epochs, right=right)


def test_one_that_was_trained_for_longer_ranks_before_one_that_was_not() -> None:
    most, few = np.arange(100) < 90, np.arange(100) < 50
    found = Sweep([tried("a", 1, most), tried("b", 3, few), tried("c", 3, most), tried("d", 0, None)])
    assert [candidate.name for candidate in found.ranking()] == ["c", "b", "a"]
    shares = {candidate.name: found.p_value(candidate) for candidate in found.ranking()}
    assert (shares["c"], shares["a"]) == (None, None)
    assert shares["b"] == pytest.approx(2 / 2**40)
