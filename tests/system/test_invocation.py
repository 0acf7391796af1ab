"""What is not installed is named with what installs it, and commands are printed so that they can be pasted."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from app.system import invocation
from app.system.invocation import command_line, this_command

_BLOCKER = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""

RunWithout = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_without(tmp_path: Path) -> RunWithout:
    """Return the function that runs a program in an environment that lacks a module."""

    def run(missing: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "sitecustomize.py").write_text(_BLOCKER.format(missing=missing))
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("missing", ["typer", "scipy", "jinja2"])
def test_training_without_its_dependencies_names_what_installs_them(run_without: RunWithout, missing: str) -> None:
    done = run_without(missing, "training", "audit", "--data", "digits")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {missing} is not installed for {sys.executable}: run `make setup-training`, or "
        "`pip install '.[training]'`. After make, the command is: .venv/bin/python -m training audit --data digits\n"
    )


def test_the_service_without_its_dependencies_names_what_installs_them(run_without: RunWithout) -> None:
    done = run_without("pydantic", "app", "serve")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: pydantic is not installed for {sys.executable}: run `make setup`, or `pip install .`. After make, the "
        "command is: .venv/bin/python -m app serve\n"
    )


def test_the_extra_of_grpc_is_named_if_its_port_is_set(run_without: RunWithout) -> None:
    done = run_without("grpc_health", "app", "serve", "--port", "0", "--grpc-port", "8001")
    assert done.returncode == 1
    assert "run `make setup`, or `pip install '.[grpc]'`" in done.stderr.splitlines()[-1]


def test_the_extra_of_tracing_is_named_if_the_environment_asks_for_it(
    run_without: RunWithout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    done = run_without("opentelemetry.sdk", "app", "serve", "--port", "0")
    assert done.returncode == 1
    assert json.loads(done.stderr.splitlines()[-1])["reason"] == (
        "OTEL_* variables ask for traces, but OpenTelemetry's exporter is not installed: "
        "run `make setup`, or `pip install '.[tracing]'`, or set OTEL_SDK_DISABLED=true."
    )


def test_a_module_of_our_own_that_is_missing_is_a_defect_and_keeps_its_traceback(run_without: RunWithout) -> None:
    assert "Traceback" in run_without("app.cli.serve", "app", "serve").stderr


def test_every_extra_has_what_installs_it(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(invocation._EXTRAS.values()) == set(extras)
    for extra in extras:
        assert f"'.[{extra}]'" in invocation.installs(extra)


def test_an_installed_package_has_its_extras_from_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(invocation, "_CHECKOUT", tmp_path)
    assert invocation.installs("training") == "run `pip install 'imageclass[training]'`"
    assert invocation.installs(None) == "run `pip install 'imageclass'`"


def test_commands_name_the_interpreter_as_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "-m", "training", "fit", "--data", "my pictures"])
    assert command_line("app", "serve", "--model-store", "my store") == (
        ".venv/bin/python -m app serve --model-store 'my store'"
    )
    assert command_line("app", "serve", here=False) == "python -m app serve"
    assert this_command("--resume") == ".venv/bin/python -m training fit --data 'my pictures' --resume"


def test_help_can_be_pasted() -> None:
    done = subprocess.run([sys.executable, "-m", "app", "serve", "--no"], capture_output=True, text=True, check=False)
    assert f"{sys.executable} -m app serve --help" in " ".join(done.stderr.split())


def test_process_1_of_a_container_ends_at_sigterm_while_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    try:
        with pytest.raises(SystemExit) as end, invocation.plain_ends():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == invocation.TERMINATED
