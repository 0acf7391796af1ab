"""How pictures become arrays, and what becomes of those that cannot."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from app.contract.preprocessing import PreprocessingSpec, prepare, preprocess
from training.data.dataset import Picture
from training.data.tensors import BadPicture, load_tensors
from training.errors import DataError

GREY = PreprocessingSpec(height=6, width=5, colour="grey")
RGB = PreprocessingSpec(height=6, width=5, colour="rgb")
RANDOM = np.random.default_rng(0)


def pictures_in(folder: Path, count: int, suffix: str = ".png") -> list[Picture]:
    pictures = []
    for number in range(count):
        file = folder / f"{number:03d}{suffix}"
        image = RANDOM.integers(0, 256, (7 + number % 3, 9, 3), np.uint8)
        file.write_bytes(cv2.imencode(suffix, image)[1].tobytes())
        pictures.append(Picture(file.name, "ab"[number % 2], None, file))
    return pictures


def damaged(folder: Path, name: str, label: str, content: bytes = b"not a picture") -> Picture:
    (folder / name).write_bytes(content)
    return Picture(name, label, None, folder / name)


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_files_become_what_the_service_sees_in_their_order(
    tmp_path: Path, spec: PreprocessingSpec, suffix: str
) -> None:
    pictures = pictures_in(tmp_path, 101, suffix)
    tensors = load_tensors(pictures, spec, ("a", "b"), on_bad_image="fail")
    assert tensors.images.shape == (101, *spec.shape)
    assert tensors.images.dtype == np.uint8
    assert tensors.targets.dtype == np.int64
    assert tensors.targets.tolist() == [number % 2 for number in range(101)]
    assert tensors.pictures == tuple(pictures)
    assert tensors.skipped == ()
    for image, picture in zip(tensors.images, pictures, strict=True):
        np.testing.assert_array_equal(image, preprocess(picture.encoded(), spec))


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_arrays_become_what_their_png_becomes(spec: PreprocessingSpec, shape: tuple[int, ...]) -> None:
    arrays = [RANDOM.integers(0, 256, shape, np.uint8) for _ in range(4)]
    pictures = [Picture(str(number), "a", None, array) for number, array in enumerate(arrays)]
    tensors = load_tensors(pictures, spec, ("a", "b"), on_bad_image="fail")
    for image, array, picture in zip(tensors.images, arrays, pictures, strict=True):
        np.testing.assert_array_equal(image, prepare(array, spec))
        np.testing.assert_array_equal(image, preprocess(picture.encoded(), spec))


def test_progress_adds_up_to_all_pictures(tmp_path: Path) -> None:
    steps: list[int] = []
    load_tensors(pictures_in(tmp_path, 70), GREY, ("a", "b"), on_bad_image="fail", advance=steps.append)
    assert sum(steps) == 70
    assert len(steps) > 1


def test_no_pictures_give_no_rows() -> None:
    tensors = load_tensors([], RGB, ("a", "b"), on_bad_image="fail")
    assert tensors.images.shape == (0, 6, 5, 3)
    assert tensors.targets.shape == (0,)


def test_bad_pictures_are_left_out_and_the_others_keep_their_order(tmp_path: Path) -> None:
    good = pictures_in(tmp_path, 80)
    gone = Picture("gone.png", "b", None, tmp_path / "gone.png")
    cut = damaged(tmp_path, "cut.png", "a", good[0].encoded()[:20])
    pictures = [cut, *good[:50], damaged(tmp_path, "text.png", "a"), *good[50:], gone]
    tensors = load_tensors(pictures, RGB, ("a", "b"), on_bad_image="skip")
    assert tensors.pictures == tuple(good)
    assert [bad.id for bad in tensors.skipped] == ["cut.png", "text.png", "gone.png"]
    assert tensors.skipped[2] == BadPicture("gone.png", "gone.png cannot be read: No such file or directory.")
    clean = load_tensors(good, RGB, ("a", "b"), on_bad_image="fail")
    np.testing.assert_array_equal(tensors.images, clean.images)
    np.testing.assert_array_equal(tensors.targets, clean.targets)


def test_bad_pictures_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    bad = [damaged(tmp_path, f"bad{number}.png", "a") for number in range(7)]
    with pytest.raises(DataError) as caught:
        load_tensors([*pictures_in(tmp_path, 3), *bad], GREY, ("a", "b"), on_bad_image="fail")
    message = str(caught.value)
    assert message.startswith("7 of 10 pictures cannot be used: bad0.png: ")
    assert "bad4.png" in message
    assert "bad5.png" not in message
    assert "and 2 more" in message
    assert "leave them out with --on-bad-image skip" in message


def test_class_that_loses_all_its_pictures_is_an_error(tmp_path: Path) -> None:
    pictures = [*pictures_in(tmp_path, 4), damaged(tmp_path, "owl.png", "owl")]
    with pytest.raises(DataError, match=r"No picture of class 'owl' can be used; the first, owl\.png: "):
        load_tensors(pictures, GREY, ("a", "b", "owl"), on_bad_image="skip")


def test_label_that_is_not_among_the_models_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Class 'b' is not one that the model knows: a, c"):
        load_tensors(pictures_in(tmp_path, 2), GREY, ("a", "c"), on_bad_image="fail")


def test_bundled_digits_are_taken_as_they_are() -> None:
    files = sorted((Path(__file__).parents[2] / "data").glob("*.png"))
    pictures = [Picture(file.name, file.name[0], None, file) for file in files]
    spec = PreprocessingSpec(height=28, width=28, colour="grey")
    tensors = load_tensors(pictures, spec, [str(digit) for digit in range(10)], on_bad_image="fail")
    assert np.bincount(tensors.targets).tolist() == [8] * 10
    raw = cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(tensors.images[0, :, :, 0], raw)
