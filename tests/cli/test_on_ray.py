"""`predict --engine ray` where it cannot run. Where it can, tests/ray runs it."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.__main__ import cli


def test_without_ray_it_says_how_to_install_it(
    repository: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("app.cli.predict.command.log_errors_only", lambda: None)  # it would change the log of all tests
    store = ("--model-store", str(repository / "model_store"))
    parts = ("--shards", str(tmp_path / "parts"), "--output", "jsonl", "--engine", "ray")
    done = CliRunner().invoke(cli, ["predict", str(data_folder), *store, *parts])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "error: --engine ray needs Ray, which is not installed: run `make setup-ray` and use .venv-ray, or "
        "`pip install '.[ray]'`."
    )


@pytest.mark.parametrize("more", [(), ("--shards", "parts", "--output", "csv", "--url", "http://127.0.0.1:1")])
def test_it_needs_shards_and_no_service(more: tuple[str, ...], data_folder: Path) -> None:
    done = CliRunner().invoke(cli, ["predict", str(data_folder), "--engine", "ray", *more])
    assert done.exit_code == 2
    assert "ray needs --shards" in done.stderr
