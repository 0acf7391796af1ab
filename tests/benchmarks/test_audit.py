"""What is planted is known exactly, and is the same for the same seed."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.audit import measure_copies
from benchmarks.audit_planting import NEAR, mislabel, pixels_of, plant
from training.dataset import Dataset, Picture


def dataset(count: int) -> Dataset:
    pictures = []
    for row in range(count):
        coarse = np.random.default_rng(row).integers(0, 256, (7, 7), np.uint8)
        image = np.asarray(cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_CUBIC), np.uint8)
        pictures.append(Picture(f"{row:03}", "abc"[row % 3], None, image))
    return Dataset.of("data", pictures)


def test_planting_adds_copies_of_every_kind_and_is_the_same_for_a_seed(tmp_path: Path) -> None:
    first, second = (plant(dataset(30), tmp_path / name, each=4, seed=7) for name in ("one", "two"))
    assert first.copies == second.copies
    assert set(first.copies) == {"exact copy", "exact, other format", *NEAR}
    assert all(len(pairs) == 4 for pairs in first.copies.values())
    assert len(first.corrupt) == 8
    by_id = {picture.id: picture for picture in first.dataset.pictures}
    for original, copy in first.copies["exact, other format"]:
        grey, bmp = pixels_of(by_id[original]), pixels_of(by_id[copy])  # OpenCV decodes BMP to three channels
        np.testing.assert_array_equal(np.dstack([grey] * 3), bmp)
    for original, copy in first.copies["mirrored"]:
        np.testing.assert_array_equal(pixels_of(by_id[original])[:, ::-1], pixels_of(by_id[copy]))
    for one, other in zip(first.dataset.pictures, second.dataset.pictures, strict=True):
        assert one.encoded() == other.encoded()


def test_copies_of_one_picture_count_as_planted_with_each_other(tmp_path: Path) -> None:
    planted = plant(dataset(3), tmp_path, each=3, seed=0)
    copies = [copy for pairs in planted.copies.values() for original, copy in pairs if original == "001"]
    assert planted.is_planted(copies[0], copies[1])
    assert planted.is_planted("001", copies[0])
    assert not planted.is_planted("000", copies[0])


@pytest.mark.parametrize("uniform", [True, False])
def test_mislabelling_changes_the_share_that_was_asked_for_and_says_which(uniform: bool) -> None:
    data = dataset(3_000)
    noisy, wrong = mislabel(data, rate=0.1, uniform=uniform, seed=0)
    changed = {a.id for a, b in zip(data.pictures, noisy.pictures, strict=True) if a.label != b.label}
    assert changed == wrong
    assert len(wrong) == pytest.approx(300, rel=0.2)


def test_the_audit_finds_what_was_planted_in_easy_pictures() -> None:
    rows, note = measure_copies(dataset(60), each=3, seed=1)
    assert {row.defect: row.recall for row in rows} == dict.fromkeys(
        ("corrupt file", "exact copy", "exact, other format", *NEAR), 1.0
    )
    assert ", 0 of them not planted" in note
