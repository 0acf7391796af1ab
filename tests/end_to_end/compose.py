"""Compose projects of the tests' own on a real Docker engine."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.end_to_end.callers import free_port, is_ready
from tests.end_to_end.pages import on_terminal

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 1800  # without any cache, TensorFlow alone is a download of 570 MB
_SOURCES = (
    ".dockerignore",
    "Dockerfile",
    "app",
    "deploy",
    "docker",
    "docker-compose.object-storage.yml",
    "docker-compose.yml",
    "requirements",
    "training",
)
"""What Compose needs of the repository, but for the model store."""


def why_no_engine() -> str:
    """Return why containers cannot be tested here; empty if they can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except subprocess.TimeoutExpired:
            return f"`{' '.join(command)}` does not answer within 30 s"
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            return f"`{' '.join(command)}` fails: {reason}"
    return ""


@dataclass(frozen=True)
class ComposeProject:
    """A Compose project of its own: its name, its port and its copy of the model store collide with nobody's."""

    model_store: Path
    name: str = field(default_factory=lambda: f"imageclass-test-{uuid.uuid4().hex[:8]}")
    port: int = field(default_factory=free_port)
    port_variable: str = "PORT"
    variables: dict[str, str] = field(default_factory=dict)
    folder: Path = ROOT

    @property
    def environment(self) -> dict[str, str]:
        """What a command that calls `docker compose` needs to be about this project."""
        return {
            "COMPOSE_PROJECT_NAME": self.name,
            "BIND": "127.0.0.1",
            self.port_variable: str(self.port),
            "MODEL_STORE": str(self.model_store),
            **self.variables,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, timeout_s: float = 120, **environment: str) -> str:
        """Run `docker compose` and return what it printed; a failure shows all of it."""
        return self.call(["docker", "compose", *arguments], timeout_s=timeout_s, **environment)

    def call(self, command: list[str], *, timeout_s: float = 120, **environment: str) -> str:
        """Run a command that calls `docker compose` for this project."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**_inherited(), **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False
            )
        return done.stdout

    @contextmanager
    def in_foreground(self, command: str, log: Path, url: str = "") -> Iterator[None]:
        """Run a command of a page on a terminal until `url` answers, and press Ctrl-C at the end of the block."""
        environment = {**_inherited(), **self.environment}
        with on_terminal(
            command, self.folder, log, environment, lambda: is_ready(url or self.url), timeout_s=BUILD_TIMEOUT_S
        ):
            yield

    def containers(self, service: str) -> list[str]:
        return self.run("ps", "--all", "--quiet", service).split()


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("IMAGECLASS_")}


def copy_of_sources(folder: Path) -> Path:
    """Copy what Compose needs, with the bundled model, for commands that are run in the repository and change it."""
    folder.mkdir()
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "model_store" / "mnist", folder / "model_store" / "mnist")
    return folder


@contextmanager
def removed_after(project: ComposeProject, profile: str) -> Iterator[None]:
    """Remove at the end of the block all that the project has made, with its images."""
    try:
        yield
    finally:
        project.run("--profile", profile, "down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5")
