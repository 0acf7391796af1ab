"""The commands and programs that pages of the documentation show, and how tests run them: as they stand there, except
for the interpreter, the address of the service and what a test changes."""

import os
import pty
import re
import shlex
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.end_to_end.callers import until

REPOSITORY = Path(__file__).parents[2]
_ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):8000")
_PYTHON = re.compile(r"(?<!\S)(?:\.venv/bin/)?python(?=\s)")
_STOP_TIMEOUT_S = 60
_OUTPUT = ("", "json")
"""The languages of blocks that show what a command prints."""

_CONTROLLERS = (
    "needs {}, which the cluster of tests/cluster does not have; tests/deploy holds the files against schemas"
)
NOT_RUN = {
    "docs/how-to/kserve.md": {"": _CONTROLLERS.format("KServe")},
    "docs/how-to/kubernetes-autoscaling.md": {"": _CONTROLLERS.format("prometheus-adapter and Helm")},
    "docs/how-to/monitoring.md": {
        "make dashboards": "writes into the repository; tests/deploy/test_monitoring.py compares what it would write",
        ".venv/bin/python -m pytest": "is tests itself",
    },
    "docs/how-to/ray.md": {"make setup-ray": "makes the environment in which tests/ray run the other commands"},
}
"""Commands of pages, by their beginning, that no test runs, and why."""


class Page:
    """A page, and what no test has taken from it yet."""

    def __init__(self, name: str) -> None:
        self.text = (REPOSITORY / name).read_text(encoding="utf-8")
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        shown: list[tuple[str, str]] = []
        for language, text in blocks:
            if language == "sh":
                shown += [("sh", line) for line in text.replace("\\\n", "").splitlines() if line]
            elif language not in _OUTPUT:
                shown.append((language, text))
        beginnings = tuple(NOT_RUN.get(name, {}))
        self.not_run = [text for _, text in shown if text.startswith(beginnings)]
        self.left = [(language, text) for language, text in shown if not text.startswith(beginnings)]
        """The language and the text of each command line, and of each other block that is not output."""

    def commands(self, beginning: str = "") -> list[str]:
        """Take the commands that begin with this."""
        return self._take("sh", beginning)

    def block(self, language: str) -> str:
        """Take the one block in a language that is not the shell's."""
        [text] = self._take(language, "")
        return text

    def _take(self, language: str, beginning: str) -> list[str]:
        taken = [each for each in self.left if each[0] == language and each[1].startswith(beginning)]
        assert taken, (language, beginning)
        self.left = [each for each in self.left if each not in taken]
        return [text for _, text in taken]


@contextmanager
def opened(name: str) -> Iterator[Page]:
    """Open a page whose commands a test runs. At the end of the block all of them must have been taken."""
    page = Page(name)
    yield page
    assert page.left == [], f"the test of {name} runs less than the page shows"


def run(command: str, folder: Path, *, url: str = "", **environment: str) -> str:
    """Run a command in the folder, against the service at `url`, and return what it prints to standard output."""
    done = subprocess.run(
        ["bash", "-c", as_here(command, url)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def on_terminal(
    command: str, folder: Path, log: Path, environment: dict[str, str], is_up: Callable[[], bool], *, timeout_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command on a terminal until it is up, and press Ctrl-C at the end of the block. It prints into `log`."""
    keyboard, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 120))
    with subprocess.Popen(
        ["setsid", "--ctty", "bash", "-c", as_here(command)],
        cwd=folder,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as shell:
        os.close(terminal)
        reader = threading.Thread(target=_write_log, args=(keyboard, log))
        reader.start()
        try:
            until(lambda: shell.poll() is not None or is_up(), timeout_s=timeout_s)
            assert shell.poll() is None, log.read_text()
            yield shell
        finally:
            if shell.poll() is None:
                os.write(keyboard, b"\x03")
                shell.wait(_STOP_TIMEOUT_S)
            reader.join(_STOP_TIMEOUT_S)
            os.close(keyboard)


def _write_log(terminal: int, log: Path) -> None:
    with log.open("wb") as file, suppress(OSError):  # which is the end of what a terminal has to read
        while output := os.read(terminal, 65536):
            file.write(output)
            file.flush()


def run_program(program: str, folder: Path, *, url: str = "", **environment: str) -> str:
    """Run a Python program of a page, as `run` runs a command."""
    return run(f"python -c {shlex.quote(program)}", folder, url=url, **environment)


def as_here(command: str, url: str = "") -> str:
    """Return the command with the interpreter of the tests, and with the address of their service."""
    command = _PYTHON.sub(lambda _: shlex.quote(sys.executable), command)
    return _ADDRESS.sub(url, command) if url else command


def settings_of(command: str) -> dict[str, str]:
    """Return the settings with which a command such as `IMAGECLASS_MODEL=mnist make run` starts the service."""
    *variables, make, target = shlex.split(command, comments=True)
    assert (make, target) == ("make", "run"), command
    pairs = (variable.split("=", 1) for variable in variables)
    return {name.removeprefix("IMAGECLASS_").lower(): value for name, value in pairs}
