"""What photos go through in training: each change does what its name says, and nothing where it is not asked for."""

from dataclasses import replace

import numpy as np
import pytest

from training.fitting.photographic import photograph
from training.model.preset import Augmentation

SEED = np.array([3, 4], np.int32)
EVERYTHING = Augmentation(mirror=True, colour=1.0, blur=0.5, noise=6.0, erase=0.5)


@pytest.fixture
def photos() -> np.ndarray:
    """64 times one picture (32, 24, 3): dark, with a bright reddish square at the upper left."""
    pictures = np.full((64, 32, 24, 3), 40, np.float32)
    pictures[:, 4:14, 2:10] = (210, 140, 110)
    return pictures


def changed(photos: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    found = np.asarray(photograph(photos, augmentation, seed=SEED))
    assert found.shape == photos.shape
    return found


def test_nothing_asked_changes_nothing(photos: np.ndarray) -> None:
    assert (changed(photos, Augmentation()) == photos).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_seed_gives_the_same_changes_and_another_one_others(photos: np.ndarray, channels: int) -> None:
    photos = photos[..., :channels]
    first = changed(photos, EVERYTHING)
    assert (changed(photos, EVERYTHING) == first).all()
    assert (photograph(photos, EVERYTHING, seed=SEED + 1).numpy() != first).any()
    assert len({picture.tobytes() for picture in first}) == 64


def test_half_of_the_pictures_are_mirrored_and_the_others_are_left(photos: np.ndarray) -> None:
    found = changed(photos, Augmentation(mirror=True))
    mirrored = (found == photos[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (found == photos).all(axis=(1, 2, 3))).all()
    assert 20 < mirrored.sum() < 44


def test_light_changes_colour_and_brightness_within_the_levels_and_moves_nothing(photos: np.ndarray) -> None:
    found = changed(photos, Augmentation(colour=1.0))
    assert found.min() >= 0
    assert found.max() <= 255
    inside, outside = found[:, 5:13, 3:9].mean(axis=(1, 2)), found[:, 20:, 14:].mean(axis=(1, 2))
    assert (inside.mean(axis=1) > outside.mean(axis=1)).all()
    colourless = np.ptp(found, axis=3).max(axis=(1, 2)) < 90
    assert colourless.any()
    assert not colourless.all()
    assert np.ptp(inside.mean(axis=1)) > 50


def test_a_weaker_light_changes_less(photos: np.ndarray) -> None:
    weak, strong = (
        np.abs(changed(photos[..., :1], Augmentation(colour=colour)) - photos[..., :1]).mean() for colour in (0.2, 1.0)
    )
    assert weak < strong / 2


def test_blur_softens_its_share_and_keeps_flat_places(photos: np.ndarray) -> None:
    found = changed(photos, Augmentation(blur=0.5))
    touched = (found != photos).any(axis=(1, 2, 3))
    assert 20 < touched.sum() < 44
    assert found[:, 20:, 14:] == pytest.approx(40)
    assert (found[touched][:, 4, 5, 0] < 210).all()


def test_noise_is_as_strong_as_asked_at_most(photos: np.ndarray) -> None:
    deviations = (changed(photos, Augmentation(noise=6.0)) - photos).std(axis=(1, 2, 3))
    assert deviations.max() < 6.5
    assert 2 < deviations.mean() < 4


def test_erasing_covers_one_rectangle_with_one_colour_in_its_share(photos: np.ndarray) -> None:
    found = changed(photos, replace(Augmentation(), erase=0.5))
    touched = (found != photos).any(axis=3)
    hit = touched.any(axis=(1, 2))
    assert 15 < hit.sum() < 44
    for picture, covered in zip(found[hit], touched[hit], strict=True):
        rows, columns = covered.any(axis=1), covered.any(axis=0)
        assert covered[np.ix_(rows, columns)].all()
        assert np.ptp(picture[covered], axis=0).max() == 0
        assert rows.mean() <= 0.5
        assert columns.mean() <= 0.5
