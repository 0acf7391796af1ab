"""The command `explain`: a drawn picture, or one line that says why there is none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from app.__main__ import cli


def test_a_picture_is_drawn_with_its_heat_map(repository: Path, data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "why.png"
    store, seven = repository / "model_store", data_folder / "7-00000.png"
    done = CliRunner().invoke(cli, f"explain {seven} -o {out} --model mnist --model-store {store}")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("7 ")
    assert "explained by rise, 1000 masks" in done.output
    drawn = np.asarray(Pillow.open(out))
    assert drawn.shape == (224, 224, 3)
    assert (drawn[..., 0] != drawn[..., 2]).any()  # a grey picture has got colours


@pytest.mark.parametrize(
    ("picture", "options", "says"),
    [
        ("missing.png", "", "missing.png cannot be read"),
        ("7-00000.png", "--label cat", "'cat' is not a label of the model 'mnist'"),
        ("7-00000.png", "-o nowhere/why.png", "nowhere/why.png cannot be written"),
    ],
)
def test_what_cannot_be_explained_is_told_in_one_line(
    repository: Path, data_folder: Path, picture: str, options: str, says: str
) -> None:
    words = f"explain {data_folder / picture} {options} --model mnist --model-store {repository / 'model_store'}"
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output
