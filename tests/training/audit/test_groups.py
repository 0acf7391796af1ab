"""What belongs together, how it is named, and that it is never divided."""

import gzip
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.contract.bundle import open_bundle
from tests.training.audit.conftest import scene, write
from training.__main__ import cli
from training.audit.groups import groups_of, together
from training.data.dataset import Dataset, Picture, Split
from training.data.sources import open_data
from training.data.split import assign_splits
from training.errors import OptionError

IMAGE = np.zeros((2, 2), np.uint8)


def dataset(*ids: str) -> Dataset:
    return Dataset.of("data", [Picture(name, name.split("/")[0], None, IMAGE) for name in ids])


# Naming groups


def test_a_pattern_names_the_group_by_its_first_group_or_its_whole_match() -> None:
    data = dataset("cat/anna-1.png", "cat/anna-2.png", "dog/bert-1.png", "dog/other.png")
    named = {"cat/anna-1.png": "anna", "cat/anna-2.png": "anna", "dog/bert-1.png": "bert"}
    assert groups_of(data, "data", r"/([a-z]+)-[0-9]") == named
    assert groups_of(data, "data", "anna|bert") == named


def test_a_csv_column_names_the_group(tmp_path: Path) -> None:
    rows = ["path,label,Patient"]
    for row in range(6):
        write(tmp_path / "pictures" / f"{row}.png", scene(row))
        rows.append(f"pictures\\{row}.png,{'ab'[row % 2]},{['p1', 'p2', ''][row // 2]}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = groups_of(open_data(str(tmp_path / "list.csv")), str(tmp_path / "list.csv"), "patient")
    assert found == {f"pictures/{row}.png": f"p{row // 2 + 1}" for row in range(4)}


def test_runs_are_file_numbers_that_step_by_two_at_most_while_the_class_rises() -> None:
    data = dataset(
        "0/IMG_1.jpg",
        "1/IMG_2.jpg",
        "3/IMG_4.jpg",
        "0/IMG_5.jpg",
        "1/IMG_6.jpg",
        "0/IMG_9.jpg",
        "1/IMG_11.jpg",
        "2/X_3.jpg",
    )
    assert groups_of(data, "data", "runs") == {
        "0/IMG_1.jpg": "IMG_1",
        "1/IMG_2.jpg": "IMG_1",
        "3/IMG_4.jpg": "IMG_1",
        "0/IMG_5.jpg": "IMG_5",  # the class falls: the next person
        "1/IMG_6.jpg": "IMG_5",
        "0/IMG_9.jpg": "IMG_9",  # a step of three: the next person
        "1/IMG_11.jpg": "IMG_9",
        "2/X_3.jpg": "X_3",
    }


def test_neighbouring_runs_with_one_class_in_common_at_most_are_one_person() -> None:
    paused = ["0/1.jpg", "1/2.jpg", "2/7.jpg", "3/8.jpg"]
    changed_the_order = ["1/11.jpg", "3/12.jpg", "0/13.jpg", "2/14.jpg"]
    took_one_twice = ["0/21.jpg", "1/22.jpg", "1/23.jpg", "2/24.jpg", "3/25.jpg"]
    groups = groups_of(dataset(*paused, *changed_the_order, *took_one_twice), "data", "runs")
    assert [{groups[name] for name in person} for person in (paused, changed_the_order, took_one_twice)] == [
        {"1"},
        {"11"},
        {"21"},
    ]


@pytest.mark.parametrize(("group_by", "words"), [("(", "not a regular expression"), ("zebra", "matches no picture")])
def test_what_groups_nothing_is_told(group_by: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        groups_of(dataset("a/1", "b/2"), "data", group_by)


# Keeping them together


def test_copies_and_groups_are_joined_through_one_another() -> None:
    data = dataset("a/1", "a/2", "a/3", "b/4", "b/5")
    joined = together(data.pictures, [[1, 2], [2, 3]], {"a/1": "x", "a/2": "x"})
    assert joined == dict.fromkeys(("a/1", "a/2", "a/3", "b/4"), "a/1")


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_divided_and_every_class_gets_its_share(seed: int) -> None:
    data = dataset(*(f"{label}/{person:02}-{label}.png" for label in "abcde" for person in range(60)))
    groups = groups_of(data, "data", "/([0-9]+)")
    joined = together(data.pictures, [], groups)
    assignment = assign_splits(data, seed=seed, validation=0.1, test=0.2, together=joined)
    splits = defaultdict(set)
    for picture, split in assignment.rows:
        splits[groups[picture.id]].add(split)
    assert {len(found) for found in splits.values()} == {1}
    for label in "abcde":
        assert assignment.counts()["test"][label] == pytest.approx(12, abs=1)
        assert assignment.counts()["validation"][label] == pytest.approx(6, abs=1)


def test_a_group_that_is_a_whole_class_stays_in_training() -> None:
    data = dataset(*(f"a/{row}" for row in range(10)), *(f"b/{row}" for row in range(10)))
    joined = together(data.pictures, [list(range(10))], {})
    counts = assign_splits(data, seed=0, validation=0.0, test=0.5, together=joined).counts()
    assert counts["train"]["a"] == 10
    assert counts["test"]["b"] == 5


def test_an_unmarked_copy_of_a_given_test_picture_goes_to_the_test() -> None:
    marked: list[tuple[str, Split | None]] = [("a/t", "test"), *((f"a/{row}", None) for row in range(9))]
    pictures = [Picture(name, "a", split, IMAGE) for name, split in marked]
    pictures += [Picture(f"b/{row}", "b", None, IMAGE) for row in range(9)]
    data = Dataset.of("data", pictures)
    joined = together(data.pictures, [[0, 5]], {})
    assert "a/4" in {
        picture.id for picture in assign_splits(data, seed=0, validation=0, test=0, together=joined).pictures("test")
    }


def test_a_copy_that_is_marked_for_training_and_one_that_is_not_come_to_one_side() -> None:
    marked: list[tuple[str, Split | None]] = [(f"a/{row:02}", "train" if row % 2 else None) for row in range(40)]
    pictures = [Picture(name, "a", split, IMAGE) for name, split in marked]
    pictures += [Picture(f"b/{row:02}", "b", None, IMAGE) for row in range(40)]
    data = Dataset.of("data", pictures)
    joined = together(data.pictures, [[row, row + 1] for row in range(0, 40, 2)], {})
    splits = {
        picture.id: split
        for picture, split in assign_splits(data, seed=0, validation=0, test=0.3, together=joined).rows
    }
    assert all(splits[f"a/{row:02}"] == splits[f"a/{row + 1:02}"] for row in range(0, 40, 2))
    assert list(splits.values()).count("test") == 24


# In fit


def fit(data: Path, tmp_path: Path, *options: str) -> tuple[int, str]:
    arguments = [
        "--data",
        str(data),
        "--name",
        "m",
        "--epochs",
        "1",
        "--no-report",
        "--model-store",
        str(tmp_path / "store"),
        *options,
    ]
    done = CliRunner().invoke(cli, ["fit", "--preset", "seed", *arguments])
    return done.exit_code, done.stderr


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    for row in range(40):
        split = "train" if row < 30 else "test"
        write(tmp_path / "leaking" / split / "ab"[row % 2] / f"{row:02}.png", scene(row))
    shutil.copy(tmp_path / "leaking/train/a/00.png", tmp_path / "leaking/test/a/00.png")
    return tmp_path / "leaking"


def test_fit_refuses_given_splits_that_share_a_picture(leaking: Path, tmp_path: Path) -> None:
    code, said = fit(leaking, tmp_path)
    assert code == 1
    error = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "train/a/00.png" in error
    assert "--allow-leakage" in error
    assert list((tmp_path / "store").iterdir()) == []


def test_fit_trains_on_leaking_splits_when_allowed_and_keeps_that_on_record(leaking: Path, tmp_path: Path) -> None:
    code, said = fit(leaking, tmp_path, "--allow-leakage")
    assert code == 0, said
    training = open_bundle(tmp_path / "store" / "m" / "1").manifest.training
    assert isinstance(training["audit"], dict)
    assert training["audit"]["leakage"] == 1
    assert "--allow-leakage" in str(training["command"])


def test_fit_refuses_given_splits_that_share_a_group(leaking: Path, tmp_path: Path) -> None:
    (leaking / "test/a/00.png").unlink()
    assert fit(leaking, tmp_path)[0] == 0
    code, said = fit(leaking, tmp_path, "--group-by", r"/([0-9])[0-9]\.png")
    assert code == 0, said
    (leaking / "test/a/30.png").rename(leaking / "test/a/00-again.png")
    code, said = fit(leaking, tmp_path, "--group-by", r"/([0-9]{2})")
    assert code == 1
    assert "Group '00'" in said


def test_fit_keeps_near_duplicates_together_in_the_splits_that_it_makes(pets: Path, tmp_path: Path) -> None:
    for row in range(24):
        write(pets / ("cats" if row % 2 else "dogs") / f"{row:02}-copy.jpg", scene(row))
    code, said = fit(pets, tmp_path, "--validation", "0.2")
    assert code == 0, said
    assert "48 pictures are kept together in 24 groups" in said
    bundle = open_bundle(tmp_path / "store" / "m" / "1")
    rows = [
        line.split(",")
        for line in gzip.decompress((bundle.path / "split.csv.gz").read_bytes()).decode().splitlines()[1:]
    ]
    splits = {name: split for name, _, split in rows}
    assert all(splits[name] == splits[name.replace(".png", "-copy.jpg")] for name in splits if name.endswith(".png"))
    assert set(splits.values()) == {"train", "validation", "test"}
