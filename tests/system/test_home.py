"""~ in paths that no shell has seen."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.__main__ import cli as app_cli
from app.settings import Settings
from app.system.home import expanded
from training.__main__ import cli

STORE = Path(__file__).parents[2] / "model_store"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_photos(folder: Path) -> None:
    for seed, label in enumerate(("cats", "dogs")):
        (folder / label).mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (24, 24), np.uint8)
        (folder / label / "a.png").write_bytes(cv2.imencode(".png", noise)[1].tobytes())


@pytest.mark.parametrize("value", [None, 3, "photos", "a/~/b", "~nobody-of-this-name/x", Path("photos")])
def test_what_names_no_home_stays_as_it_is(value: object) -> None:
    assert expanded(value) == value


def test_settings_expand_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLASS_MODEL_STORE", "~/models")
    monkeypatch.setenv("IMAGECLASS_API_KEYS_FILE", "~/keys")
    settings = Settings.load()
    assert settings.model_store == home / "models"
    assert settings.api_keys_file == home / "keys"
    assert Settings.load(model_store=Path("~/others")).model_store == home / "others"


@pytest.mark.parametrize("data", [["--data", "~/photos"], ["--data=~/photos"]])
def test_training_expands_it_in_data_and_in_other_paths(home: Path, data: list[str]) -> None:
    write_photos(home / "photos")
    done = CliRunner().invoke(cli, ["audit", *data, "--out=~/found", "--no-labels", "--no-cache", "--fix=~/clean"])
    assert done.exit_code == 0, done.output
    assert (home / "found" / "audit.json").is_file()
    assert (home / "clean" / "cats" / "a.png").is_file()


def test_fit_expands_it_in_data_and_store(home: Path) -> None:
    write_photos(home / "photos")
    done = CliRunner().invoke(cli, ["fit", "--data=~/photos", "--name=m", "--model-store=~/models", "--about=~/no.md"])
    assert done.exit_code == 1
    assert f"--about {home}/no.md cannot be read" in done.stderr


def test_predict_expands_it(home: Path) -> None:
    write_photos(home / "photos")
    (home / "list").write_text(f"{home}/photos/cats/a.png\n")
    for asked in (["~/photos"], ["--files-from=~/list"]):
        done = CliRunner().invoke(app_cli, ["predict", *asked, "--json", "--model-store", str(STORE)])
        assert done.exit_code == 0, done.output
        assert f"{home}/photos/cats/a.png" in done.stdout
