"""Near duplicates: what is one picture changed a little, and what only looks alike."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.audit.conftest import scene, write
from training.audit.near import near_pairs
from training.audit.pairs import NearPair
from training.audit.pipeline import AuditOptions, run_audit
from training.data.sources import open_data
from training.progress import Reporter

Array = NDArray[np.uint8]
SIDE = 48


def grey(seed: int) -> Array:
    return np.asarray(cv2.cvtColor(scene(seed), cv2.COLOR_BGR2GRAY), np.uint8)


def drawing(seed: int, side: int = 28) -> Array:
    """Return random strokes on black."""
    random = np.random.default_rng(seed)
    picture = np.zeros((side, side), np.uint8)
    points = random.integers(6, side - 6, (5, 1, 2), np.int32)
    cv2.polylines(picture, [points], False, 255, 2, cv2.LINE_AA)
    return picture


def moved(picture: Array, *, degrees: float = 0, zoom: float = 1, x: float = 0, y: float = 0) -> Array:
    middle = ((picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle, degrees, zoom)
    matrix[:, 2] += np.array([x, y])
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def recompressed(picture: Array) -> Array:
    data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 50))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def resized(picture: Array) -> Array:
    side = picture.shape[0]
    small = cv2.resize(picture, (side * 2 // 3, side * 2 // 3), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


CHANGES: dict[str, Callable[[Array], Array]] = {
    "recompressed": recompressed,
    "resized": resized,
    "brightened": lambda picture: np.clip(picture * 1.2 + 40.0, 0, 255).astype(np.uint8),
    "shifted": lambda picture: moved(picture, x=3, y=-2),
    "cropped": lambda picture: moved(picture, zoom=1.1, x=1),
    "turned": lambda picture: moved(picture, degrees=5),
    "mirrored": lambda picture: picture[:, ::-1],
}


def pairs_of(pictures: list[Array]) -> list[NearPair]:
    stack = np.stack(pictures)
    return near_pairs(stack, np.arange(len(stack)), threshold=0.98, reporter=Reporter())


@pytest.mark.parametrize("kind", ["photos", "drawings"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_others_and_nothing_else_is(kind: str, change: str) -> None:
    make = grey if kind == "photos" else drawing
    originals = [make(seed) for seed in range(60)]
    copies = [np.ascontiguousarray(CHANGES[change](originals[row])) for row in (3, 11, 29)]
    found = {(pair.first, pair.second) for pair in pairs_of([*originals, *copies])}
    assert found == {(3, 60), (11, 61), (29, 62)}


def test_what_makes_the_one_of_the_other_is_told() -> None:
    originals = [grey(seed) for seed in range(40)]
    turned, shifted, reflected = moved(originals[1], degrees=5), moved(originals[2], x=4), originals[3][:, ::-1]
    found = {pair.first: pair for pair in pairs_of([*originals, turned, shifted, np.ascontiguousarray(reflected)])}
    assert found[1].describe() == "the same picture, turned by 5°"
    assert found[2].describe() == "the same picture, shifted by 8% of its side"
    assert found[3].describe() == "the same picture, mirrored"
    assert abs(found[1].degrees) == pytest.approx(5, abs=0.3)


def test_copies_of_copies_are_all_found() -> None:
    originals = [grey(seed) for seed in range(40)]
    copies = [moved(originals[5], x=step) for step in (1, 2, 3)]
    found = {(pair.first, pair.second) for pair in pairs_of([*originals, *copies])}
    assert {(5, 40), (5, 41), (5, 42)} <= found
    assert found <= {(a, b) for a in (5, 40, 41, 42) for b in (40, 41, 42)}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_pictures_are_no_special_case(count: int) -> None:
    assert pairs_of([grey(seed) for seed in range(count)] or [grey(0)]) == []


def test_even_pictures_are_not_near_duplicates_of_everything() -> None:
    pictures = [np.full((SIDE, SIDE), level, np.uint8) for level in (0, 90, 255)] + [grey(seed) for seed in range(20)]
    assert pairs_of(pictures) == []


def test_more_pictures_than_one_tile_lose_nobody() -> None:
    """The search keeps running maxima over tiles of 2,000 columns."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (4_500, 6, 6), np.uint8)
    pictures = [np.asarray(cv2.resize(each, (16, 16), interpolation=cv2.INTER_CUBIC), np.uint8) for each in coarse]
    copies = [moved(pictures[row], degrees=4) for row in (0, 2_249, 4_499)]
    found = {(pair.first, pair.second) for pair in pairs_of([*pictures, *copies])}
    assert found == {(0, 4_500), (2_249, 4_501), (4_499, 4_502)}


def audit(data: Path) -> dict[str, set[frozenset[str]]]:
    found: dict[str, set[frozenset[str]]] = {}
    for finding in run_audit(open_data(str(data)), AuditOptions(labels=False), Reporter()).findings:
        found.setdefault(finding.check, set()).add(frozenset(finding.pictures))
    return found


def test_near_duplicates_across_classes_conflict_and_across_given_splits_leak(tmp_path: Path) -> None:
    for row in range(40):
        split = "train" if row < 30 else "test"
        write(tmp_path / "data" / split / "ab"[row % 2] / f"{row:02}.png", scene(row))
    write(tmp_path / "data" / "test" / "a" / "leak.jpg", scene(0))
    write(tmp_path / "data" / "train" / "b" / "conflict.jpg", scene(2))
    write(tmp_path / "data" / "train" / "a" / "copy.jpg", scene(4))
    assert audit(tmp_path / "data") == {
        "near-leakage": {frozenset({"train/a/00.png", "test/a/leak.jpg"})},
        "conflict": {frozenset({"train/a/02.png", "train/b/conflict.jpg"})},
        "near-duplicate": {frozenset({"train/a/04.png", "train/a/copy.jpg"})},
    }


def test_of_equal_pictures_one_is_compared_and_named(pets: Path) -> None:
    for name in ("x", "y"):
        write(pets / "cats" / f"{name}.jpg", scene(1))
    found = audit(pets)
    assert found["duplicate"] == {frozenset({"cats/x.jpg", "cats/y.jpg"})}
    assert found["near-duplicate"] == {frozenset({"cats/01.png", "cats/x.jpg"})}


def test_data_without_a_single_good_picture_is_told_and_no_more(pets: Path) -> None:
    for file in pets.rglob("*.png"):
        file.write_bytes(b"")
    found = audit(pets)
    assert set(found) == {"corrupt"}
    assert len(found["corrupt"]) == 24


def test_pictures_too_small_to_tell_are_left_out_and_that_is_said() -> None:
    done = run_audit(open_data("digits"), AuditOptions(labels=False), Reporter())
    assert done.near == []
    assert "too small" in done.skipped["near-duplicate"]
