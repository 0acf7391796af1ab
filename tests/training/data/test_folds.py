"""Folds for cross-validation: whose pictures come into which, and that `fit` holds out the one it is told to."""

import csv
import gzip
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.contract.bundle import open_bundle
from training.__main__ import cli
from training.data.dataset import Dataset, Picture
from training.data.folds import Fold, deal, hold_out, parse_fold
from training.errors import OptionError

IMAGE = np.zeros((2, 2), np.uint8)
PEOPLE = {f"{label}/{person:02}.png": f"{person:02}" for label in "abcde" for person in range(23)}


def dataset(*ids: str) -> Dataset:
    return Dataset.of("data", [Picture(name, name.split("/")[0], None, IMAGE) for name in ids])


def test_no_person_is_divided_and_every_fold_gets_its_share_of_every_class() -> None:
    folds = deal(dataset(*PEOPLE), count=5, seed=0, together=PEOPLE)
    of_person = defaultdict(set)
    for name, fold in folds.items():
        of_person[PEOPLE[name]].add(fold)
    assert {len(found) for found in of_person.values()} == {1}
    counts = Counter((name[0], fold) for name, fold in folds.items())
    assert set(counts.values()) == {4, 5}
    assert len(counts) == 25


def test_pictures_that_stand_alone_are_dealt_class_by_class() -> None:
    counts = Counter((name[0], fold) for name, fold in deal(dataset(*PEOPLE), count=5, seed=0, together={}).items())
    assert set(counts.values()) == {4, 5}


def test_folds_are_the_same_whatever_the_order_of_the_files_and_differ_by_seed() -> None:
    first = deal(dataset(*PEOPLE), count=5, seed=0, together=PEOPLE)
    assert deal(dataset(*reversed(PEOPLE)), count=5, seed=0, together=PEOPLE) == first
    assert deal(dataset(*PEOPLE), count=5, seed=1, together=PEOPLE) != first


def test_folds_are_the_same_on_every_machine() -> None:
    folds = deal(dataset(*PEOPLE), count=5, seed=0, together={})
    assert "".join(str(folds[f"a/{person:02}.png"]) for person in range(23)) == "31221432544254521513533"


def test_the_folds_held_out_are_all_pictures_each_once() -> None:
    data = dataset(*PEOPLE)
    tested = [
        picture.id
        for number in range(1, 4)
        for picture in hold_out(data, Fold(number, 3), seed=0, together=PEOPLE).pictures
        if picture.split == "test"
    ]
    assert sorted(tested) == sorted(PEOPLE)


def test_data_with_splits_of_its_own_and_too_few_people_are_refused() -> None:
    marked = Dataset.of("data", [Picture("a/1", "a", "train", IMAGE), Picture("b/1", "b", None, IMAGE)])
    with pytest.raises(OptionError, match="its own splits"):
        deal(marked, count=2, seed=0, together={})
    with pytest.raises(OptionError, match="too few for 3 folds"):
        deal(dataset("a/1", "b/1", "a/2", "b/2"), count=3, seed=0, together={"a/1": "x", "b/1": "x", "a/2": "x"})


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "2", "a/b", "-1/5", "2/5/1"])
def test_what_is_no_fold_is_told(text: str) -> None:
    with pytest.raises(OptionError, match="2/5 for the second of five"):
        parse_fold(text)


def test_fit_tests_on_the_fold_that_folds_wrote_down_and_says_so_in_its_command(tmp_path: Path) -> None:
    written = tmp_path / "folds.csv"
    done = CliRunner().invoke(cli, f"folds --data digits --folds 3 --seed 4 --out {written}")
    assert done.exit_code == 0, done.output
    with written.open(encoding="utf-8", newline="") as stream:
        second = {row["id"] for row in csv.DictReader(stream) if row["fold"] == "2"}
    store = tmp_path / "store"
    done = CliRunner().invoke(
        cli,
        "fit --preset seed --data digits --name d --epochs 1 --seed 4 --fold 2/3 --validation 0.1 --no-report "
        f"--model-store {store}",
    )
    assert done.exit_code == 0, done.output
    bundle = open_bundle(store / "d" / "1")
    rows = csv.DictReader(gzip.decompress((bundle.path / "split.csv.gz").read_bytes()).decode().splitlines())
    splits = defaultdict(set)
    for row in rows:
        splits[row["split"]].add(row["id"])
    assert splits["test"] == second
    assert set(splits) == {"train", "validation", "test"}
    assert "--fold 2/3" in str(bundle.manifest.training["command"])
    assert "--test" not in str(bundle.manifest.training["command"])


def test_folds_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, f"folds --data digits --out {tmp_path / 'nowhere' / 'folds.csv'}")
    assert done.exit_code == 1
    assert "error: --out" in done.stderr
