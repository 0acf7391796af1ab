"""Installing: `make setup` with a pip that only says how it was called."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

_PIP = """#!/bin/sh
case "$*" in
  "-c import pip") ;;
  *) echo "pip: $*"; exit ${FAILS:-0} ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(_PIP)
    python.chmod(0o755)
    return tmp_path / "venv"


@pytest.mark.parametrize("target", ["setup", "setup-training"])
def test_pip_shows_its_progress_on_a_terminal(repository: Path, environment: Path, target: str) -> None:
    ours, theirs = pty.openpty()
    subprocess.run(["make", target, f"VENV={environment}"], cwd=repository, stdout=theirs, check=True)
    os.close(theirs)
    said = os.read(ours, 4096).decode()
    os.close(ours)
    assert "pip: -m pip install --progress-bar=on --require-hashes" in said
    assert "--quiet" not in said


def test_in_a_log_pip_says_only_what_fails(repository: Path, environment: Path) -> None:
    command = ["make", "setup", f"VENV={environment}"]
    done = subprocess.run(
        command, cwd=repository, env=os.environ | {"FAILS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip: -m pip install --quiet --quiet --require-hashes" in done.stdout
    assert "requirements/serving.txt could not be installed; the lines above say why." in done.stderr
