"""What the benchmark of photos says of its runs, and that a baseline runs."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.errors import BenchmarkError
from benchmarks.training.photos import Run, markdown, train_once

RUN = Run("fit", 0, 0.93, 300.0, 400.0, 0.1)


def test_a_row_has_the_mean_its_interval_and_both_times() -> None:
    runs = [replace(RUN, seed=seed, accuracy=accuracy) for seed, accuracy in enumerate((0.93, 0.94, 0.95))]
    assert "| fit | 3 | 94.00 ± 2.48 | 93.00 | 300 | 400 |" in markdown(runs, [])


def test_without_a_second_seed_there_is_no_interval() -> None:
    assert "| fit | 1 | 93.00 | 93.00 | 300 | 400 |" in markdown([RUN], ["a note"])


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    across = np.tile(np.repeat(np.array([0, 255], np.uint8), 8), 12)[None, :].repeat(192, axis=0)
    for split, count in (("train", 6), ("validation", 2), ("test", 2)):
        for label, picture in (("across", across), ("down", across.T)):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                cv2.imwrite(str(folder / f"{number}.png"), np.roll(picture, number, axis=(0, 1)))
    return tmp_path


def test_histograms_tell_stripes_apart(stripes: Path) -> None:
    run = train_once("histograms", seed=0, data=str(stripes))
    assert (run.name, run.accuracy) == ("histograms", 1.0)
    assert run.cpu_seconds > 0


def test_as_many_photos_of_each_class_are_drawn_as_asked(stripes: Path) -> None:
    run = train_once("histograms", seed=0, data=str(stripes), per_class=5)
    assert run.accuracy == 1.0
    with pytest.raises(BenchmarkError, match=r"across has 6 photos, fewer than 7\."):
        train_once("histograms", seed=0, data=str(stripes), per_class=7)
    with pytest.raises(BenchmarkError, match="has no folders train/ and test/ to draw photos of each class from"):
        train_once("histograms", seed=0, data=str(stripes / "train"), per_class=1)


def test_a_failed_training_says_which(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="The training of histograms with seed 3 failed"):
        train_once("histograms", seed=3, data=str(tmp_path))
