"""What is planted is known exactly, and is the same for the same seed; others are asked about the same data."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.audit import beside, recall
from benchmarks.audit.beside import cleanlab_rows
from benchmarks.audit.planting import NEAR, mislabel, pixels_of, plant
from benchmarks.audit.recall import markdown, measure_copies, measure_labels
from benchmarks.harness.errors import BenchmarkError
from training.audit.label_models import LabelModel
from training.audit.labels import suspects
from training.data.dataset import Dataset, Picture

EQUAL_BYTES = """
import collections, json, pathlib, sys
sets = collections.defaultdict(list)
for file in pathlib.Path(sys.argv[1]).iterdir():
    if file.stat().st_size == 0:
        sys.exit(f"NoPicture: {file}")
    sets[file.read_bytes()].append(file.name)
print("reading")
print(json.dumps({"version": "9.8", "exact": [s for s in sets.values() if len(s) > 1], "near": [FALSE]}))
"""
ALL_OR_NONE = """
import json, sys, numpy
arrays = numpy.load(sys.argv[1])
assert arrays["probabilities"].shape == (len(arrays["labels"]), 3)
rows = list(range(len(arrays["labels"])))
print(json.dumps({"prune_by_noise_rate": rows, "confident_learning": []}))
"""


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
        np.testing.assert_array_equal(pixels_of(by_id[original]), pixels_of(by_id[copy]))
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
    rows, notes = measure_copies(dataset(60), each=3, seed=1)
    assert {row.defect: row.recall for row in rows} == dict.fromkeys(
        ("corrupt file", "exact copy", "exact, other format", *NEAR), 1.0
    )
    assert ", 0 of them not planted" in notes[0]


@pytest.fixture
def contestants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand where the contestants are; the Python that runs the tests runs them."""
    monkeypatch.setattr(beside, "HERE", tmp_path)
    monkeypatch.setattr(beside, "python_of", lambda _contestant: Path(sys.executable))
    return tmp_path / "contestants"


def stand_in(contestants: Path, name: str, script: str) -> None:
    (contestants / name).mkdir(parents=True)
    (contestants / name / "check.py").write_text(script)


def test_cleanvision_is_asked_about_the_planted_files_and_scored_as_ours(contestants: Path) -> None:
    stand_in(contestants, "cleanvision", EQUAL_BYTES.replace("FALSE", '["0000000.png", "0000001.png"]'))
    rows, notes = measure_copies(dataset(60), each=3, seed=1, beside=True)
    cells = {row.defect: row.beside.get("cleanvision") for row in rows}
    assert cells["exact copy"] == "1.000 / 1.000"
    assert cells["exact, other format"] == "0.000 / 1.000"
    assert cells["mirrored"] == "0.000"
    assert cells["corrupt file"] is None
    assert "ends at a corrupt file" in notes[1]
    assert "NoPicture: /corrupt/" in notes[1]
    assert "1 near pairs, 1 of them not planted" in notes[1]


def test_cleanlab_decides_on_our_probabilities_and_has_a_column_for_each_filter(
    contestants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(contestants, "cleanlab", ALL_OR_NONE)
    undecided = LabelModel(
        "undecided",
        lambda pictures, _looks, _reporter: np.zeros((len(pictures), 1), np.float16),
        lambda features, *_: np.full((len(features), 3), 1 / 3, np.float32),
        suspects,
    )
    monkeypatch.setattr(recall, "label_model", lambda *_: undecided)
    rows = measure_labels(dataset(60), seed=0, beside=True)
    assert len(rows) == 4
    for row in rows:
        assert row.beside == {
            "cleanlab": f"1.000 / {row.planted / 60:.3f}",
            "cleanlab, confident_learning": "0.000 / 1.000",
        }
    header, _, first = markdown(rows, []).splitlines()[:3]
    assert header.endswith("| cleanvision | cleanlab | cleanlab, confident_learning |")
    assert first.endswith(f"| – | {rows[0].beside['cleanlab']} | 0.000 / 1.000 |")


def test_without_others_the_table_has_no_columns_for_them() -> None:
    rows, notes = measure_copies(dataset(60), each=3, seed=1)
    assert "clean" not in markdown(rows, notes)


def test_what_a_contestant_said_last_is_the_error(contestants: Path, tmp_path: Path) -> None:
    stand_in(contestants, "cleanlab", "raise ValueError('no labels')")
    with pytest.raises(BenchmarkError, match="cleanlab: ValueError: no labels"):
        cleanlab_rows(np.full((4, 3), 1 / 3), np.zeros(4, np.int64), tmp_path)
