"""The presets for small grey pictures, trained from the command line on data that is always there."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.contract.bundle import open_bundle
from training.__main__ import cli


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "epochs", "least"),
    [("quick", 6, 0.95), pytest.param("tiny", 12, 0.85, marks=pytest.mark.long)],
)
def test_it_learns_digits_and_exports_a_graph_that_averages_views(
    preset: str, epochs: int, least: float, tmp_path: Path
) -> None:
    options = ["--preset", preset, "--epochs", str(epochs), "--require", f"accuracy={least}", "--size", "20"]
    done = CliRunner().invoke(
        cli, ["fit", "--data", "digits", "--name", "digits", "--model-store", str(tmp_path), *options, "--no-report"]
    )
    assert done.exit_code == 0, done.output
    bundle = open_bundle(tmp_path / "digits" / "1")
    assert json.loads((bundle.path / "manifest.json").read_text())["training"]["views"] == "shifted"
