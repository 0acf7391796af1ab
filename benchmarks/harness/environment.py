"""A contestant's virtual environment, installed by plain pip from its pinned requirements."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.errors import NotBuilt
from benchmarks.harness.workload import HERE, WORK

_STAMP = "requirements.lock"
_INSTALL_TIMEOUT_S = 1800


def python_of(contestant: str, *, of_the_system: bool = False) -> Path:
    """Return the interpreter of a contestant's environment; build the environment unless it is up to date.

    It is made of this Python, or of the system's own if the contestant is linked to that.

    The stamp is a copy of the requirements, written last: an interrupted installation is repeated.
    """
    requirements = HERE / "contestants" / contestant / "requirements.txt"
    home = WORK / "venvs" / contestant
    stamp = home / _STAMP
    python = home / "bin" / "python"
    if python.exists() and stamp.exists() and stamp.read_bytes() == requirements.read_bytes():
        return python
    print(f"installing {contestant} (once)", flush=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run("/usr/bin/python3" if of_the_system else sys.executable, "-m", "venv", "--clear", str(home))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
    except NotBuilt:
        shutil.rmtree(home, ignore_errors=True)
        raise
    shutil.copyfile(requirements, stamp)
    return python


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise NotBuilt(f"its installation took longer than {_INSTALL_TIMEOUT_S} s") from exc
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise NotBuilt(f"cannot be installed: {reason}")
