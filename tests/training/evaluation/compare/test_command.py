"""`python -m training compare` as its users meet it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from training.__main__ import cli


@pytest.fixture(scope="module")
def store(trained_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with digits:1 of two epochs and digits:2 of one, on the same pictures, and other:1 on others."""
    store = Path(shutil.copytree(trained_store, tmp_path_factory.mktemp("compared") / "store"))
    for options in (
        "--name digits --epochs 1 --learning-rate 0.0002",
        "--name other --epochs 1 --seed 1",
    ):
        done = CliRunner().invoke(cli, f"fit --preset seed --data digits --no-report --model-store {store} {options}")
        assert done.exit_code == 0, done.output
    return store


def compare(store: Path, arguments: str) -> Result:
    return CliRunner().invoke(cli, f"compare {arguments} --data digits --model-store {store} --engine tensorflow")


def compared(store: Path, arguments: str) -> Any:
    done = compare(store, f"{arguments} --json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_two_versions_stand_side_by_side(store: Path) -> None:
    found = compared(store, "digits:1 digits/2")
    pictures = found["pictures"]
    assert pictures == sum(found[kind] for kind in ("both_right", "only_a_right", "only_b_right", "neither_right"))
    better, worse = found["a"], found["b"]
    assert better["accuracy"] > worse["accuracy"]
    assert better["nll"] < worse["nll"]
    assert (better["parameters"], worse["parameters"]) == (121_930, 121_930)
    assert better["model_bytes"] > 4 * 121_930
    assert better["low"] < better["accuracy"] < better["high"]
    assert set(better["recall"]) == {str(digit) for digit in range(10)}
    assert better["macro_recall"] == pytest.approx(sum(better["recall"].values()) / 10)
    assert min(better["ms_alone"], better["ms_in_batches"]) > 0
    discordant = found["only_a_right"] - found["only_b_right"]
    assert discordant == round(pictures * (better["accuracy"] - worse["accuracy"]))
    assert found["difference"]["value"] == pytest.approx(-discordant / pictures)
    assert found["p_value"] < 0.05
    assert "digits:1 is better" in found["verdict"]


def test_the_worst_disagreements_come_first(store: Path) -> None:
    rows = compared(store, "digits:1 digits:2")["disagreements"]
    assert rows
    for row in rows:
        wrong = "b" if row["right"] == "a" else "a"
        assert row[row["right"]]["label"] == row["label"] != row[wrong]["label"]
    sure = [row["b" if row["right"] == "a" else "a"]["probability"] for row in rows]
    assert sure == sorted(sure, reverse=True)


def test_what_was_learned_is_said(store: Path) -> None:
    found = compared(store, "digits:1 other")
    assert found["a"]["learned"] == 0
    assert found["b"]["learned"] > 0
    shown = compare(store, "digits:1 other")
    assert f"other:1 was trained on {found['b']['learned']} of these pictures" in shown.stdout


def test_a_person_reads_a_table_and_a_verdict(store: Path) -> None:
    shown = compare(store, f"digits:1 {store / 'digits' / '2'}")
    assert shown.exit_code == 0, shown.output
    assert "macro recall" in shown.stdout
    assert "recall of 7" in shown.stdout
    assert "calibration error" in shown.stdout
    assert "digits:1 is better, and 359 pictures are enough to say so." in shown.stdout
    assert "only one is right" in shown.stdout


def refused(store: Path, arguments: str) -> str:
    done = compare(store, arguments)
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("digits:1 digits:9", "digits has no version 9"),
        ("digits:1 digits:1", "Name two bundles"),
        ("digits:1 nobody", "'nobody' is neither a model"),
        ("digits:1 no/such/folder", "'no/such/folder' is neither"),
    ],
)
def test_what_cannot_be_compared_is_one_line(store: Path, arguments: str, words: str) -> None:
    assert words in refused(store, arguments)


def test_bundles_of_other_classes_are_refused(store: Path, repository: Path) -> None:
    photos = repository / "model_store" / "mnist" / "1"
    manifest = json.loads((store / "digits" / "1" / "manifest.json").read_text())
    other = store / "letters" / "1"
    shutil.copytree(photos, other)
    told = json.loads((other / "manifest.json").read_text())
    told["name"], told["labels"] = "letters", [*manifest["labels"][:-1], "nine"]
    (other / "manifest.json").write_text(json.dumps(told))
    try:
        assert "knows the class '9'" in refused(store, "digits:1 letters:1")
    finally:
        shutil.rmtree(store / "letters")
