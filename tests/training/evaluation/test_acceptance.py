"""What is required of a model before it is published."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.contract.bundle import open_bundle
from app.contract.store import ModelStore
from training.__main__ import cli
from training.errors import NotGoodEnough, OptionError
from training.evaluation.acceptance import (
    Requirement,
    check_recall,
    check_requirements,
    parse_against,
    parse_requirement,
)

FIT = ["fit", "--preset", "seed", "--data", "digits", "--name", "digits", "--epochs", "1", "--batch-size", "256"]
FIT += ["--no-report"]


def scores(**recalls: float | None) -> dict[str, Any]:
    return {"by_class": {label: {"recall": recall} for label, recall in recalls.items()}}


def run(*arguments: str, store: Path) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--model-store", str(store)])


def error_of(done: Result) -> str:
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.output
    return line


def test_a_requirement_is_a_figure_and_a_number() -> None:
    assert parse_requirement("macro_f1=0.9") == Requirement("macro_f1", 0.9)
    assert parse_requirement("loss=1.5") == Requirement("loss", 1.5)


@pytest.mark.parametrize(
    "text", ["accuracy", "accuracy=", "accuracy=good", "accuracy=nan", "speed=1", "=1", "accuracy=98"]
)
def test_what_is_no_requirement_says_how_to_write_one(text: str) -> None:
    with pytest.raises(OptionError, match=r"accuracy=0\.98"):
        parse_requirement(text)


def test_what_to_compare_with_is_a_version_or_live() -> None:
    assert (parse_against("live"), parse_against("12")) == ("live", 12)
    for text in ("0", "-1", "newest", "1.0"):
        with pytest.raises(OptionError, match="nor live"):
            parse_against(text)


def test_every_figure_that_is_missed_is_named_with_both_values() -> None:
    found = {"accuracy": 0.91, "macro_f1": 0.9, "loss": 0.5}
    check_requirements(found, [Requirement("accuracy", 0.91), Requirement("loss", 0.5)], on="a test")
    with pytest.raises(NotGoodEnough) as raised:
        check_requirements(
            found,
            [Requirement("accuracy", 0.98), Requirement("macro_f1", 0.8), Requirement("loss", 0.4)],
            on="the 10 test pictures",
        )
    assert str(raised.value) == (
        "On the 10 test pictures, accuracy is 91.00%, and at least 98.00% is required; "
        "loss is 0.5000, and at most 0.4000 is required."
    )


def test_a_class_may_be_recalled_worse_by_what_is_allowed_and_no_more() -> None:
    before = scores(cat=0.9, dog=0.8, fox=None)
    check_recall(scores(cat=0.88, dog=0.95, fox=0.1), before, version=3, max_drop=0.02, on="a test")
    with pytest.raises(NotGoodEnough, match=r"against version 3: 'cat' from 90\.00% to 87\.00%\.$"):
        check_recall(scores(cat=0.87, dog=0.95, fox=0.1), before, version=3, max_drop=0.02, on="a test")


def test_a_class_that_is_new_has_nothing_to_lose_and_one_that_is_gone_has_lost_all() -> None:
    check_recall(scores(cat=0.9, fox=0.0), scores(cat=0.9), version=1, max_drop=0.0, on="a test")
    with pytest.raises(NotGoodEnough, match=r"'dog' from 80\.00% to 0\.00%"):
        check_recall(scores(cat=1.0), scores(cat=0.9, dog=0.8), version=1, max_drop=0.5, on="a test")


def test_a_model_that_does_not_reach_what_is_required_is_not_published(tmp_path: Path, few_digits: Path) -> None:
    line = error_of(
        run(
            *FIT, "--data", str(few_digits), "--require", "accuracy=1", "--require", "macro_recall=0.01", store=tmp_path
        )
    )
    assert "accuracy is" in line
    assert "at least 100.00% is required" in line
    assert "macro_recall" not in line
    assert line.endswith("Nothing was published.")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_reaches_it_is_published_with_the_figures_in_its_metrics(tmp_path: Path) -> None:
    done = run(*FIT, "--require", "accuracy=0.2", "--against", "live", store=tmp_path)
    assert done.exit_code == 0, done.output
    assert "no version yet" in done.stderr
    bundle = open_bundle(tmp_path / "digits" / "1")
    test = bundle.metrics()["test"]
    recalls = [row["recall"] for row in test["by_class"].values()]
    assert test["worst_recall"] == min(recalls)
    assert test["macro_recall"] == pytest.approx(sum(recalls) / len(recalls))
    assert 0 < test["macro_f1"] <= 1
    assert "--require" not in str(bundle.manifest.training["command"])


def test_a_model_that_is_worse_than_the_one_before_is_not_published(copy_of_store: Path) -> None:
    # One step of gradient descent against two epochs of the same network.
    worse = ["--batch-size", "full", "--optimizer", "sgd"]
    line = error_of(run(*FIT, *worse, "--against", "1", "--max-recall-drop", "0.05", store=copy_of_store))
    assert "recall falls by more than 5.00% against version 1: '" in line
    assert line.endswith("Nothing was published.")
    assert ModelStore(copy_of_store).versions("digits") == [1]
    done = run(*FIT, *worse, "--against", "live", "--max-recall-drop", "1", store=copy_of_store)
    assert done.exit_code == 0, done.output
    assert ModelStore(copy_of_store).versions("digits") == [1, 2]


def test_a_rival_that_has_learned_the_test_pictures_is_said_to_be_too_good(copy_of_store: Path) -> None:
    done = run(*FIT, "--seed", "5", "--against", "1", "--max-recall-drop", "1", store=copy_of_store)
    assert done.exit_code == 0, done.output
    assert "version 1 was trained on" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--against", "7"], "7 is not a bundle"),
        (["--against", "best"], "nor live"),
        (["--require", "accuracy=98"], "accuracy=0.98"),
        (["--require", "accuracy=0.5", "--test", "0"], "--test"),
    ],
)
def test_what_cannot_be_judged_is_said_before_the_training(copy_of_store: Path, options: list[str], words: str) -> None:
    done = run(*FIT, *options, store=copy_of_store)
    assert words in error_of(done)
    assert "training:" not in done.stderr


def test_evaluate_judges_a_published_version_in_the_same_way(copy_of_store: Path) -> None:
    evaluate = ["evaluate", "--data", "digits", "--model", "digits", "--json"]
    good = run(*evaluate, "--require", "accuracy=0.5", "--against", "live", store=copy_of_store)
    assert good.exit_code == 0, good.output
    bad = run(*evaluate, "--require", "worst_recall=1", store=copy_of_store)
    assert "worst_recall is" in error_of(bad)
    assert json.loads(bad.stdout)["worst_recall"] < 1, "what was measured is printed all the same"
