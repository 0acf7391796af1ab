"""What the audit finds without comparing pictures: files, sizes, levels, classes, exact copies."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.errors import UndecodableImage
from tests.training.audit.conftest import scene, write
from training.audit.cache import Cache
from training.audit.inspection import inspect
from training.data.sources import open_data
from training.data.tensors import load_tensors
from training.progress import Reporter

Found = Callable[[Path], dict[str, list[tuple[str, ...]]]]


def test_good_pictures_are_left_alone(pets: Path, found: Found) -> None:
    assert found(pets) == {}


def damaged(name: str) -> bytes:
    jpeg = cv2.imencode(".jpg", scene(90))[1].tobytes()
    png = cv2.imencode(".png", scene(90))[1].tobytes()
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0x10
    text = b"\0\0\0\x03tEXta\0b" + bytes(4)  # with a wrong checksum
    return {
        "padded.jpg": jpeg[: len(jpeg) // 2] + bytes(10 * len(jpeg)),
        "behind.jpg": jpeg + jpeg[: len(jpeg) // 2],
        "text.png": png[:33] + text + png[33:],
        "empty.png": b"",
        "text.jpg": b"<html>not found</html>",
        "half.jpg": jpeg[: len(jpeg) // 2],
        "almost.jpg": jpeg[:-40],
        "half.png": png[: len(png) // 2],
        "flipped.png": bytes(flipped),
        "half.webp": cv2.imencode(".webp", scene(90))[1].tobytes()[:300],
        "half.bmp": cv2.imencode(".bmp", scene(90))[1].tobytes()[:2000],
        "header.png": png[:20],
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "empty.png",
        "text.jpg",
        "half.jpg",
        "almost.jpg",
        "half.png",
        "flipped.png",
        "half.webp",
        "half.bmp",
        "header.png",
    ],
)
def test_a_file_that_is_no_whole_picture_is_corrupt(pets: Path, found: Found, name: str) -> None:
    (pets / "cats" / name).write_bytes(damaged(name))
    assert found(pets) == {"corrupt": [(f"cats/{name}",)]}


@pytest.mark.parametrize("name", ["half.jpg", "almost.jpg", "padded.jpg", "behind.jpg", "text.png", "flipped.png"])
def test_audit_training_and_service_agree_on_what_is_damaged(pets: Path, found: Found, name: str) -> None:
    (pets / "cats" / name).write_bytes(damaged(name))
    spec = PreprocessingSpec(height=8, width=8, colour="rgb")
    try:
        preprocess(damaged(name), spec)  # the service answers 422 if it raises
        bad = set()
    except UndecodableImage:
        bad = {f"cats/{name}"}
    dataset = open_data(str(pets))
    skipped = load_tensors(dataset.pictures, spec, dataset.labels, on_bad_image="skip").skipped
    assert {picture.id for picture in skipped} == bad
    assert {pictures[0] for pictures in found(pets).get("corrupt", [])} == bad
    assert bool(bad) == (name not in ("behind.jpg", "text.png"))


def test_a_picture_that_the_service_rejects_for_its_size_is_named(
    pets: Path, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pets / "cats" / "phone.bmp", scene(91, side=60))
    monkeypatch.setattr("app.contract.limits.MAX_BYTES", 10_000)
    assert found(pets) == {"too-large": [("cats/phone.bmp",)]}


def test_fit_says_how_many_and_which_pictures_the_service_rejects_for_their_size(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        write(pets / "cats" / f"phone{number}.bmp", scene(91 + number, side=60))
    monkeypatch.setattr("app.contract.limits.MAX_BYTES", 10_000)
    said: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "say", said.append)
    dataset = open_data(str(pets))
    found = inspect(
        dataset, data=str(pets), groups={}, divides=False, allow_leakage=False, cache=Cache(None, ""), reporter=reporter
    )
    names = ", ".join(f"cats/phone{number}.bmp" for number in range(5))
    sentence = "7 pictures are larger than the service accepts unless its limits are raised"
    assert said[-1] == f"audit: {sentence}: {names} and 2 more"
    assert found.record["too-large"] == len(found.findings) == 7


def test_a_thumbnail_inside_does_not_hide_that_a_jpeg_is_cut_off(pets: Path, found: Found) -> None:
    jpeg, small = (cv2.imencode(".jpg", scene(90, side))[1].tobytes() for side in (200, 16))
    with_thumbnail = jpeg[:2] + b"\xff\xe2" + (len(small) + 2).to_bytes(2, "big") + small + jpeg[2:]
    (pets / "cats" / "whole.jpg").write_bytes(with_thumbnail)
    assert "corrupt" not in found(pets)
    (pets / "cats" / "whole.jpg").write_bytes(with_thumbnail[:-200])
    assert found(pets)["corrupt"] == [("cats/whole.jpg",)]


def test_copies_are_found_whatever_their_name_and_format(pets: Path, found: Found) -> None:
    shutil.copy(pets / "cats" / "01.png", pets / "cats" / "copy.png")
    write(pets / "dogs" / "as.bmp", cv2.imread(str(pets / "dogs" / "02.png")))  # type: ignore[arg-type]
    write(pets / "dogs" / "packed.png", cv2.imread(str(pets / "dogs" / "04.png")), cv2.IMWRITE_PNG_COMPRESSION, 9)  # type: ignore[arg-type]
    copies = {frozenset(pictures) for pictures in found(pets)["duplicate"]}
    assert copies == {
        frozenset({"cats/01.png", "cats/copy.png"}),
        frozenset({"dogs/02.png", "dogs/as.bmp"}),
        frozenset({"dogs/04.png", "dogs/packed.png"}),
    }


def test_a_grey_picture_stored_in_colour_is_the_same_picture(pets: Path, found: Found) -> None:
    grey = cv2.cvtColor(scene(70), cv2.COLOR_BGR2GRAY)
    write(pets / "cats" / "grey.png", grey)  # type: ignore[arg-type]
    write(pets / "cats" / "colour.png", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))  # type: ignore[arg-type]
    assert found(pets)["duplicate"] == [("cats/colour.png", "cats/grey.png")]


def test_a_copy_in_another_class_is_a_conflict(pets: Path, found: Found) -> None:
    shutil.copy(pets / "cats" / "01.png", pets / "dogs" / "copy.png")
    assert found(pets) == {"conflict": [("cats/01.png", "dogs/copy.png")]}


def test_a_copy_in_another_given_split_is_leakage(tmp_path: Path, found: Found) -> None:
    for row in range(40):
        split = "train" if row < 32 else "test"
        write(tmp_path / "data" / split / "ab"[row % 2] / f"{row}.png", scene(row))
    shutil.copy(tmp_path / "data" / "train" / "a" / "0.png", tmp_path / "data" / "test" / "a" / "x.png")
    shutil.copy(tmp_path / "data" / "train" / "a" / "2.png", tmp_path / "data" / "test" / "b" / "y.png")
    assert {name: {frozenset(ids) for ids in pictures} for name, pictures in found(tmp_path / "data").items()} == {
        "leakage": {
            frozenset({"train/a/0.png", "test/a/x.png"}),
            frozenset({"train/a/2.png", "test/b/y.png"}),
        },
        "conflict": {frozenset({"train/a/2.png", "test/b/y.png"})},
    }


@pytest.mark.parametrize(
    ("check", "picture"),
    [
        ("blank", np.full((48, 48, 3), 130, np.uint8)),
        ("dark", scene(80) // 5),
        ("bright", 205 + scene(80) // 6),
        ("blurred", cv2.GaussianBlur(scene(80), (0, 0), 5)),
        ("odd-size", scene(80, 300)),
        ("odd-ratio", np.concatenate([scene(80), scene(81), scene(82)], axis=1)),
    ],
)
def test_a_poor_picture_is_named_for_what_is_wrong_with_it(
    pets: Path, found: Found, check: str, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    write(pets / "cats" / "poor.png", picture)
    assert found(pets) == {check: [("cats/poor.png",)]}


def test_strokes_on_black_are_neither_dark_nor_blank_nor_blurred(
    mnist_pictures: list[tuple[Path, str]], tmp_path: Path, found: Found
) -> None:
    for file, label in mnist_pictures:
        (tmp_path / "digits" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "digits" / label)
    assert set(found(tmp_path / "digits")) <= {"few"}


def test_small_classes_are_found_without_a_picture(pets: Path, found: Found) -> None:
    for row in range(3):
        write(pets / "birds" / f"{row}.png", scene(50 + row))
    for row in range(40):
        write(pets / "cats" / f"more-{row}.png", scene(100 + row))
    assert found(pets) == {"imbalance": [()], "few": [()]}


def test_modes_names_and_orientations_are_told(pets: Path, found: Found) -> None:
    write(pets / "cats" / "see-through.png", np.dstack([scene(60), np.full((48, 48), 200, np.uint8)]))
    write(pets / "cats" / "photo.jpg", scene(61)).rename(pets / "cats" / "photo.png")
    jpeg = write(pets / "cats" / "turned.jpg", scene(62)).read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    (pets / "cats" / "turned.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    )
    assert found(pets) == {
        "mixed-modes": [("cats/see-through.png",)],
        "orientation": [("cats/turned.jpg",)],
        "misnamed": [("cats/photo.png",)],
    }
