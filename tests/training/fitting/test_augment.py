from dataclasses import replace

import numpy as np
import pytest

from training.fitting.augment import augment
from training.model.preset import Augmentation

SEED = (3, 5)


@pytest.fixture
def bars() -> np.ndarray:
    """64 pictures (28, 28, 1) of a white bar on black."""
    pictures = np.zeros((64, 28, 28, 1), np.uint8)
    pictures[:, 6:22, 12:16] = 255
    return pictures


def test_nothing_asked_changes_nothing(bars: np.ndarray) -> None:
    assert (augment(bars, Augmentation(), seed=SEED).numpy() == bars).all()


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(rotation_degrees=10),
        Augmentation(shift=0.1),
        Augmentation(zoom=0.1),
        Augmentation(shear_degrees=10),
        Augmentation(elastic=0.1),
        Augmentation(paper=1.0),
        Augmentation(colour=1.0),
    ],
)
def test_each_change_changes_pictures_differently_and_keeps_their_form(
    bars: np.ndarray, augmentation: Augmentation
) -> None:
    changed = augment(bars, augmentation, seed=SEED).numpy()
    assert changed.shape == bars.shape
    assert changed.dtype == np.uint8
    assert len({picture.tobytes() for picture in changed}) > 32


def test_geometry_keeps_the_ink_near_its_place(bars: np.ndarray) -> None:
    changed = augment(
        bars, Augmentation(rotation_degrees=12, shift=0.08, zoom=0.12, shear_degrees=8), seed=SEED
    ).numpy()
    rows, columns = np.mgrid[:28, :28]
    ink = changed[..., 0].astype(float)
    centre_y = (ink * rows).sum(axis=(1, 2)) / ink.sum(axis=(1, 2))
    centre_x = (ink * columns).sum(axis=(1, 2)) / ink.sum(axis=(1, 2))
    assert (abs(centre_y - 13.5) < 0.08 * 28 + 1).all()
    assert (abs(centre_x - 13.5) < 0.08 * 28 + 1).all()


def test_paper_keeps_strokes_lighter_than_the_ground(bars: np.ndarray) -> None:
    changed = augment(bars, Augmentation(paper=1.0), seed=SEED).numpy()[..., 0].astype(float)
    assert (changed[:, 8:20, 13:15].mean(axis=(1, 2)) > changed[:, :, :10].mean(axis=(1, 2)) + 30).all()


def test_bending_no_further_than_nothing_is_the_plain_warp(bars: np.ndarray) -> None:
    plain = Augmentation(rotation_degrees=12, shift=0.08, zoom=0.12, shear_degrees=8)
    bent = replace(plain, elastic=1e-9)
    difference = augment(bars, plain, seed=SEED).numpy().astype(int) - augment(bars, bent, seed=SEED).numpy()
    assert abs(difference).max() <= 1


def test_bending_keeps_the_ink_within_its_limit(bars: np.ndarray) -> None:
    changed = augment(bars, Augmentation(elastic=0.07), seed=SEED).numpy()[..., 0]
    rows, columns = np.nonzero(changed.max(axis=0))
    assert rows.min() >= 3
    assert rows.max() <= 24
    assert columns.min() >= 9
    assert columns.max() <= 18
