"""How pictures are divided, and that everybody divides them alike."""

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import pytest

from training.data.dataset import Dataset, Picture, Split
from training.data.split import Assignment, assign_splits, read_splits, recorded_pictures
from training.errors import DataError, OptionError

IMAGE = np.zeros((2, 2), np.uint8)


def pictures(label: str, count: int, split: Split | None = None) -> list[Picture]:
    return [Picture(f"{split}/{label}/{number:03d}.png", label, split, IMAGE) for number in range(count)]


def dataset(*groups: Iterable[Picture]) -> Dataset:
    return Dataset.of("data", [picture for group in groups for picture in group])


def sizes(assignment: Assignment, label: str) -> tuple[int, int, int]:
    counts = assignment.counts()
    return counts["train"][label], counts["validation"][label], counts["test"][label]


def test_every_class_is_divided_by_the_fractions() -> None:
    assignment = assign_splits(dataset(pictures("a", 100), pictures("b", 20)), seed=1, validation=0.1, test=0.2)
    assert sizes(assignment, "a") == (70, 10, 20)
    assert sizes(assignment, "b") == (14, 2, 4)
    assert len({picture.id for picture, _ in assignment.rows}) == 120


def test_order_of_the_files_changes_nothing() -> None:
    ordered = dataset(pictures("a", 50), pictures("ä", 50))
    shuffled = [ordered.pictures[row] for row in np.random.default_rng(7).permutation(100)]
    first = assign_splits(ordered, seed=1, validation=0.2, test=0.2)
    second = assign_splits(dataset(shuffled), seed=1, validation=0.2, test=0.2)
    assert first.to_csv() == second.to_csv()
    assert first.pictures("train") == second.pictures("train")


def test_split_is_the_same_on_every_machine() -> None:
    assignment = assign_splits(dataset(pictures("a", 50), pictures("b", 50)), seed=1, validation=0.2, test=0.2)
    assert assignment.summary()["sha256"] == "f014a376515264d5f611149c562e4bcb2b947d294a672f4d267c3c2afcdeb5e6"


def test_another_seed_divides_otherwise() -> None:
    data = dataset(pictures("a", 50), pictures("b", 50))
    first, second = (assign_splits(data, seed=seed, validation=0.2, test=0.2) for seed in (1, 2))
    assert first.pictures("test") != second.pictures("test")
    assert sizes(first, "a") == sizes(second, "a")


def test_new_picture_leaves_nearly_all_others_where_they_are() -> None:
    before = assign_splits(dataset(pictures("a", 100), pictures("b", 10)), seed=1, validation=0.1, test=0.1)
    after = assign_splits(dataset(pictures("a", 101), pictures("b", 10)), seed=1, validation=0.1, test=0.1)
    old, new = read_splits(before.to_csv()), read_splits(after.to_csv())
    assert sum(old[name] != new[name] for name in old) <= 2


@pytest.mark.parametrize(
    ("count", "validation", "test", "expected"),
    [
        (1, 0.1, 0.1, (1, 0, 0)),
        (2, 0.1, 0.1, (2, 0, 0)),
        (3, 0.1, 0.1, (1, 1, 1)),
        (3, 0.45, 0.45, (1, 1, 1)),
        (4, 0.45, 0.45, (1, 2, 1)),
        (1, 0.9, 0.0, (1, 0, 0)),
        (2, 0.0, 0.1, (1, 0, 1)),
        (2, 0.9, 0.0, (1, 1, 0)),
        (5, 0.0, 0.9, (1, 0, 4)),
        (9, 0.0, 0.0, (9, 0, 0)),
    ],
)
def test_small_class_keeps_a_training_picture_and_is_held_out_where_it_can_be(
    count: int, validation: float, test: float, expected: tuple[int, int, int]
) -> None:
    data = dataset(pictures("small", count), pictures("other", 30))
    assert sizes(assign_splits(data, seed=3, validation=validation, test=test), "small") == expected


def test_test_split_of_the_source_is_kept_and_validation_is_taken_from_train() -> None:
    groups = [group for label in "ab" for group in (pictures(label, 40, "train"), pictures(label, 10, "test"))]
    assignment = assign_splits(dataset(*groups), seed=1, validation=0.1, test=0.5)
    assert sizes(assignment, "a") == (36, 4, 10)
    assert all(picture.split == "test" for picture in assignment.pictures("test"))
    assert assignment.summary()["test"] == "given by the source"
    assert assignment.summary()["validation"] == 0.1


def test_validation_split_of_the_source_is_kept_and_test_is_taken_from_train() -> None:
    groups = [*(pictures(label, 20, "train") for label in "ab"), pictures("a", 3, "validation")]
    assignment = assign_splits(dataset(*groups), seed=1, validation=0.5, test=0.1)
    assert sizes(assignment, "a") == (18, 3, 2)
    assert sizes(assignment, "b") == (18, 0, 2)


def test_source_that_gives_both_splits_is_left_as_it_is() -> None:
    splits: tuple[Split, ...] = ("train", "validation", "test")
    data = dataset(*(pictures(label, 4, split) for label in "ab" for split in splits))
    assignment = assign_splits(data, seed=1, validation=0.9, test=0.9)
    assert sizes(assignment, "a") == (4, 4, 4)
    assert all(picture.split == split for picture, split in assignment.rows)


def test_pictures_marked_for_training_are_held_out_last() -> None:
    data = dataset(*(pictures(label, 10, split) for label in "ab" for split in ("train", None)))
    assignment = assign_splits(data, seed=1, validation=0.1, test=0.2)
    assert sizes(assignment, "a") == (14, 2, 4)
    assert all(split == "train" for picture, split in assignment.rows if picture.split == "train")


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (-0.1, 0.1, "--validation -0.1 is not a fraction from 0 to 0.9"),
        (0.1, 0.95, "--test 0.95"),
        (float("nan"), 0.1, "--validation nan"),
        (0.5, 0.5, "leave too little to train on"),
    ],
)
def test_fractions_that_cannot_be_are_option_errors(validation: float, test: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        assign_splits(dataset(pictures("a", 9), pictures("b", 9)), seed=1, validation=validation, test=test)


def test_csv_can_be_read_back_whatever_the_names() -> None:
    odd = [
        Picture(name, label, None, IMAGE) for name, label in (('a,"b\nc.png', "ä, b"), ("日本.png", "x"), ("x y", "x"))
    ]
    assignment = assign_splits(dataset(odd, pictures("x", 9)), seed=1, validation=0.2, test=0.2)
    assert assignment.to_csv().startswith("id,label,split\n")
    assert read_splits(assignment.to_csv()) == {picture.id: split for picture, split in assignment.rows}


def test_recorded_test_pictures_are_found_again() -> None:
    data = dataset(pictures("a", 20), pictures("b", 20))
    assignment = assign_splits(data, seed=1, validation=0.1, test=0.2)
    grown = dataset(data.pictures[::-1], pictures("c", 5))
    assert recorded_pictures(grown, assignment.to_csv(), "test") == assignment.pictures("test")


def test_recorded_pictures_that_are_gone_are_counted() -> None:
    assignment = assign_splits(dataset(pictures("a", 20), pictures("b", 20)), seed=1, validation=0.1, test=0.2)
    with pytest.raises(DataError, match="data lacks 8 of the 8 test pictures on record, the first None/a/"):
        recorded_pictures(dataset(pictures("c", 2), pictures("d", 2)), assignment.to_csv(), "test")


@pytest.mark.parametrize("text", ["", "path,label,split\n", "id,label,split\na,b,dev\n", "id,label,split\na\n"])
def test_record_that_is_damaged_is_a_data_error(text: str) -> None:
    with pytest.raises(DataError, match="The recorded split"):
        read_splits(text)


def test_summary_is_json_and_holds_counts_and_digest() -> None:
    data = dataset(pictures("a", 10), pictures("b", 10))
    assignment = assign_splits(data, seed=5, validation=0.1, test=0.2)
    summary = json.loads(json.dumps(assignment.summary()))
    assert summary == {
        "seed": 5,
        "validation": 0.1,
        "test": 0.2,
        "counts": {"train": {"a": 7, "b": 7}, "validation": {"a": 1, "b": 1}, "test": {"a": 2, "b": 2}},
        "sha256": hashlib.sha256(assignment.to_csv().encode()).hexdigest(),
    }
