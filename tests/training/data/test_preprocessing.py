from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.preprocessing import PictureKind, kind_of
from training.data.sources import open_data
from training.errors import DataError


def folder(path: Path, colour: tuple[int, int, int]) -> str:
    for label in ("a", "b"):
        (path / label).mkdir(parents=True)
        cv2.imwrite(str(path / label / "1.jpg"), np.full((90, 120, 3), colour, np.uint8))
    return str(path)


def test_the_kind_of_pictures_in_files_and_arrays(tmp_path: Path) -> None:
    coloured, grey = folder(tmp_path / "coloured", (200, 120, 40)), folder(tmp_path / "grey", (120, 120, 124))
    assert kind_of(open_data(coloured, say=print)) == PictureKind(90, 120, has_colour=True)
    assert kind_of(open_data(grey, say=print)) == PictureKind(90, 120, has_colour=False)
    assert kind_of(open_data("digits", say=print)) == PictureKind(8, 8, has_colour=False)


def test_the_kind_is_that_of_the_pictures_that_can_be_read(tmp_path: Path) -> None:
    data = folder(tmp_path / "some", (200, 120, 40))
    (tmp_path / "some" / "a" / "2.jpg").write_bytes(b"no picture")
    assert kind_of(open_data(data, say=print)) == PictureKind(90, 120, has_colour=True)
    for label in ("a", "b"):
        (tmp_path / "some" / label / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the first pictures"):
        kind_of(open_data(data, say=print))
