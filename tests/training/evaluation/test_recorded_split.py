"""Which pictures a measurement takes."""

from pathlib import Path

import pytest

from app.contract.bundle import Bundle, open_bundle
from training.data.dataset import Dataset, Picture, Split
from training.data.sources import open_data
from training.errors import DataError
from training.evaluation.recorded_split import choose_pictures


@pytest.fixture
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


def dataset(origin: str, *splits: Split | None) -> Dataset:
    pictures = [
        Picture(f"{index:03}.png", str(index % 2), split, Path("never-read.png"))
        for index, split in enumerate(splits * 2)
    ]
    return Dataset(origin, ("0", "1"), tuple(pictures))


def test_the_training_data_itself_is_measured_on_the_pictures_held_out_then(bundle: Bundle) -> None:
    pictures, which = choose_pictures(open_data("digits"), bundle, "test")
    counts = bundle.manifest.split["counts"]
    assert isinstance(counts, dict)
    assert isinstance(counts["test"], dict)
    assert len(pictures) == sum(int(str(count)) for count in counts["test"].values())
    assert "on record" in which


def test_other_data_is_measured_on_its_own_split(bundle: Bundle) -> None:
    pictures, which = choose_pictures(dataset("others", "train", "train", "test"), bundle, "test")
    assert [picture.id for picture in pictures] == ["002.png", "005.png"]
    assert "of the source" in which


def test_other_data_without_a_split_is_measured_whole_and_says_so(bundle: Bundle) -> None:
    pictures, which = choose_pictures(dataset("others", None, None), bundle, "test")
    assert len(pictures) == 4
    assert "no split" in which


def test_data_that_has_lost_its_test_pictures_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="lacks"):
        choose_pictures(dataset("digits", None, None), bundle, "test")


def test_a_split_that_the_data_does_not_have_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="no validation pictures"):
        choose_pictures(dataset("others", "train", "train", "test"), bundle, "validation")
