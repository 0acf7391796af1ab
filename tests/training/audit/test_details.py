"""Larger pictures are compared in colour and detail: what thumbnails take for copies often is another thing."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec, prepare
from tests.training.audit.conftest import scene
from training.audit.details import SIDE, Laid, detail_correlation
from training.audit.pairs import NearPair
from training.audit.pipeline import AuditOptions, run_audit
from training.data.dataset import Dataset, Picture
from training.progress import Reporter

Array = NDArray[np.uint8]
LYING = Laid((0.0, 0.0), 0.0, 0.0, mirrored=False)
UPRIGHT = (200, 150)


def photo(seed: int) -> Array:
    """Return an oblong photo with grain."""
    height, width = UPRIGHT
    grain = np.random.default_rng(seed).normal(0, 4, (height, width, 1))
    return np.asarray(np.clip(cv2.resize(scene(seed, height), (width, height)) + grain, 0, 255), np.uint8)


def cell(seed: int) -> Array:
    """Return a grey part off a production line: lines and edges are where those of all others are, spots are not."""
    random = np.random.default_rng(seed)
    picture = np.full((160, 160), 150, np.uint8)
    picture[:8] = picture[-8:] = picture[:, :8] = picture[:, -8:] = 60
    picture[[30, 31, 32, 80, 81, 82, 130, 131, 132]] = 20
    for x, y in random.integers(15, 145, (5, 2)).tolist():
        cv2.circle(picture, (x, y), 4, 110, -1)
    slope = np.linspace(0, random.uniform(2, 8), 160)[:, None]
    return np.asarray(np.clip(picture + slope + random.normal(0, 2, picture.shape), 0, 255), np.uint8)


def turned(picture: Array, degrees: float) -> Array:
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def recompressed(picture: Array) -> Array:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 50))[1], -1), np.uint8)


CHANGES: dict[str, Callable[[Array], Array]] = {
    "recompressed": recompressed,
    "resized": lambda picture: np.asarray(cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)),
    "brightened": lambda picture: np.clip(picture * 1.2 + 40.0, 0, 255).astype(np.uint8),
    "cropped": lambda picture: picture[12:-6, 4:-10],
    "turned": lambda picture: turned(picture, 5),
    "mirrored": lambda picture: picture[:, ::-1],
}


def near(pictures: list[Array]) -> set[tuple[int, int]]:
    data = Dataset.of("data", [Picture(f"{row:04}", "ab"[row % 2], None, each) for row, each in enumerate(pictures)])
    found: list[NearPair] = list(run_audit(data, AuditOptions(labels=False), Reporter()).near)
    return {(pair.first, pair.second) for pair in found}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_an_oblong_photo_is_found_and_nothing_else_is(change: str) -> None:
    originals = [photo(seed) for seed in range(40)]
    copies = [np.ascontiguousarray(CHANGES[change](originals[row])) for row in (3, 11, 29)]
    assert near([*originals, *copies]) == {(3, 40), (11, 41), (29, 42)}


def test_the_same_cut_in_another_colour_is_no_copy() -> None:
    originals = [photo(seed) for seed in range(40)]
    grey = originals[5].astype(np.float32).mean(axis=2)
    black = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
    maroon = np.clip(grey[..., None] * np.array([1.9, 0.55, 0.85]), 0, 255).astype(np.uint8)
    others = [each for row, each in enumerate(originals) if row != 5]
    assert near([*others, black, maroon]) == set()
    assert near([*others, black, recompressed(black)]) == {(39, 40)}


def test_parts_off_one_production_line_are_no_copies_of_each_other() -> None:
    parts = [cell(seed) for seed in range(150)]
    assert near(parts) == set()
    assert near([*parts, np.ascontiguousarray(parts[7][:, ::-1]), recompressed(parts[60])]) == {(7, 150), (60, 151)}


def test_small_pictures_are_compared_by_their_thumbnails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object) -> float:
        raise AssertionError("details were compared")

    monkeypatch.setattr("training.audit.near.detail_correlation", never)
    originals = [scene(seed, 100) for seed in range(40)]
    assert near([*originals, recompressed(originals[3])]) == {(3, 40)}


def square(picture: Array) -> Array:
    return prepare(picture, PreprocessingSpec(height=SIDE, width=SIDE, colour="rgb"))


def test_details_agree_once_an_oblong_photo_is_laid_over_its_turned_copy() -> None:
    first, second = square(photo(1)), square(turned(photo(1), 5))
    assert detail_correlation(first, second, Laid((0.0, 0.0), -np.radians(4), 0.0, mirrored=False)) > 0.95
    assert detail_correlation(first, square(photo(2)), LYING) < 0.5


def test_levels_beyond_white_are_not_compared() -> None:
    first = square(photo(1))
    washed_out = np.clip(first * 1.2 + 50.0, 0, 255).astype(np.uint8)
    assert detail_correlation(first, washed_out, LYING) > 0.95


def test_an_even_picture_is_laid_over_nothing() -> None:
    even = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert detail_correlation(even, even, LYING) < 0.5
    assert detail_correlation(square(photo(1)), even, LYING) < 0.5
