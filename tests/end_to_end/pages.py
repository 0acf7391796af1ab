"""The commands that a page of the documentation shows, and how they are run: as they stand there, but for the
interpreter and what a test changes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path


def commands(page: str, beginning: str = "") -> list[str]:
    """The lines of the page's shell blocks that begin so."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    found = [line for block in blocks for line in block.splitlines() if line.startswith(beginning)]
    assert found, beginning
    return found


def run(command: str, folder: Path, **environment: str) -> str:
    """Run a command in the folder, and return what it prints to standard output."""
    as_here = command.replace(".venv/bin/python", shlex.quote(sys.executable))
    done = subprocess.run(
        ["bash", "-c", as_here],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
