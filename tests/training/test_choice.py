"""What `fit` chooses when no preset is named, and what it says of it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from training import choice
from training.__main__ import cli
from training.choice import choose_preset
from training.data.dataset import Dataset
from training.data.sources import open_data
from training.errors import DataError

NOTHING: dict[str, Any] = {"size": None, "colour": None}


def pictures(folder: Path, shape: tuple[int, ...], *, count: int = 6) -> Dataset:
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    picture = cv2.imencode(".png", levels)[1].tobytes()  # once: what they show does not matter
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(count // 2):
            (folder / label / f"{number}.png").write_bytes(picture)
    return open_data(str(folder))


@pytest.mark.parametrize(
    ("shape", "effort", "preset"),
    [
        ((28, 28), None, "compact"),
        ((28, 28), "standard", "compact"),
        ((40, 30), "quick", "quick"),
        ((41, 30), "quick", "photos_quick"),
        ((28, 28, 3), None, "photos"),
        ((300, 400, 3), None, "photos"),
        ((300, 400), "quick", "photos_quick"),
    ],
)
def test_colour_and_size_decide(shape: tuple[int, ...], effort: Any, preset: str, tmp_path: Path) -> None:
    chosen = choose_preset(pictures(tmp_path / "data", shape), effort, **NOTHING)
    assert chosen.preset == preset
    colour = "colour" if len(shape) == 3 else "grey"
    assert f"because the pictures are {colour} and {shape[1]}x{shape[0]} pixels in the middle" in chosen.lines[0]
    assert ("--effort standard" if effort == "quick" else "--effort quick") in chosen.lines[1]
    assert "--preset seed" in chosen.lines[1]


def test_grey_pictures_that_are_stored_in_colour_are_grey(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8), 3, axis=2)
    for label in "ab":
        cv2.imwrite(str(tmp_path / label / "0.png"), grey)
    assert choose_preset(open_data(str(tmp_path)), None, **NOTHING).preset == "compact"


@pytest.mark.parametrize("options", [{"size": (64, 64), "colour": None}, {"size": None, "colour": "grey"}])
def test_what_imagenets_weights_cannot_take_is_learned_from_scratch(options: dict[str, Any], tmp_path: Path) -> None:
    chosen = choose_preset(pictures(tmp_path / "data", (200, 200, 3)), None, **options)
    assert chosen.preset == "photos_from_scratch"
    assert "ImageNet's weights need" in chosen.lines[0]


def test_without_the_weights_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "installed_weights", lambda: None)
    chosen = choose_preset(pictures(tmp_path / "data", (200, 200, 3)), None, **NOTHING)
    assert chosen.preset == "photos_from_scratch"
    assert "not installed (make setup-training)" in chosen.lines[0]


@pytest.mark.parametrize(("side", "preset"), [(128, "photos_from_scratch"), (129, "photos")])
def test_many_small_photos_are_learned_from_scratch(side: int, preset: str, tmp_path: Path) -> None:
    photos = pictures(tmp_path / "data", (side, side, 3), count=1000)
    assert choose_preset(photos, None, **NOTHING).preset == preset


@pytest.mark.parametrize(("count", "epochs"), [(298, 20), (300, 10), (998, 10), (1000, None)])
def test_few_photos_are_seen_more_often(count: int, epochs: int | None, tmp_path: Path) -> None:
    photos = pictures(tmp_path / "data", (130, 130, 3), count=count)
    assert choose_preset(photos, None, **NOTHING).epochs == epochs
    assert choose_preset(photos, "quick", **NOTHING).epochs is None


def test_pictures_of_which_none_can_be_read_are_one_sentence(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="can be read, so their kind is not known"):
        choose_preset(open_data(str(tmp_path)), None, **NOTHING)


def test_effort_and_preset_together_are_an_error() -> None:
    words = ["fit", "--data", "digits", "--name", "d", "--preset", "quick", "--effort", "quick"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code != 0
    assert "--effort and --preset both choose the preset" in done.output
