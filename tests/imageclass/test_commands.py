"""The command `imageclass`: one name for both halves, which imports no more than the command that is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.system.invocation import command_line, this_command

REPOSITORY = str(Path(__file__).parents[2])
WITHOUT = """import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
OF_TRAINING = ("jinja2", "keras", "scipy", "sklearn", "tensorflow", "threadpoolctl")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The console script, as pip writes it."""
    path = tmp_path / "bin" / "imageclass"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom imageclass.__main__ import main\nsys.exit(main())\n")
    path.chmod(0o755)
    return path


def run(script: Path, *words: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script; `before` is Python that its interpreter runs first."""
    (script.parent / "sitecustomize.py").write_text(before)
    paths = {"PYTHONPATH": os.pathsep.join([str(script.parent), REPOSITORY])}
    environment = {**os.environ, **paths, "PATH": f"{script.parent}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        [script, *words], cwd=script.parent, env=environment, capture_output=True, text=True, check=False
    )


def test_usage_and_version_name_the_command(script: Path) -> None:
    assert run(script, "predict", "--help").stdout.startswith("Usage: imageclass predict [OPTIONS] [files]...\n")
    assert run(script, "--version").stdout == "imageclass 0+checkout\n"


def test_a_command_imports_nothing_of_the_other_half_and_no_engine(script: Path) -> None:
    says = "import atexit, sys\natexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))"
    loaded = set(run(script, "predict", "--help", before=says).stderr.split())
    assert "app.cli.predict.command" in loaded
    assert not {"training.options", "app.cli.serve", "app.client", "tensorflow", "openvino", "fastapi"} & loaded
    loaded = set(run(script, "--help", before=says).stderr.split())
    assert not {"app.settings", "training.options", "pydantic_settings", "numpy"} & loaded


@pytest.mark.parametrize("words", [("audit", "--help"), ("fit", "--data", "digits", "--name", "digits")])
def test_without_the_extra_of_training_one_sentence_says_what_to_install(script: Path, words: tuple[str, ...]) -> None:
    done = run(script, *words, before=WITHOUT.format(missing=OF_TRAINING))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "is not installed" in line
    assert "run `make setup-training`, or `pip install '.[training]'`" in line


def test_without_the_extra_of_training_all_other_commands_work(script: Path) -> None:
    missing = WITHOUT.format(missing=OF_TRAINING)
    assert run(script, "serve", "--help", before=missing).returncode == 0
    assert "fit " in run(script, "--help", before=missing).stdout


def test_commands_to_paste_name_the_script_as_the_user_did(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["fit", "--data", "my pictures"]
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, str(script), *words])
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    assert command_line("app", "serve") == f"{script} serve"
    assert this_command("--resume") == f"{script} fit --data 'my pictures' --resume"
    monkeypatch.setenv("PATH", str(script.parent))
    assert command_line("app", "serve") == "imageclass serve"
    assert this_command("--resume") == "imageclass fit --data 'my pictures' --resume"
    assert command_line("training", "fit", here=False) == "python -m training fit"


COMPLETES = """source <(imageclass completion bash)
while read -r -a COMP_WORDS; do
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _imageclass_completion imageclass </dev/null
    echo "${COMPREPLY[@]}"
done
complete -p imageclass
"""


def test_bash_completes_commands_options_and_values(script: Path) -> None:
    cases = {
        "imageclass se": "serve",
        "imageclass models p": "pin preview promote push pull",
        "imageclass fit --augment": "--augment-until",
        "imageclass serve --engine o": "openvino",
    }
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": REPOSITORY}
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETES],
        input="\n".join([*cases, ""]),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *found, registered = done.stdout.splitlines()
    assert dict(zip(cases, found, strict=True)) == cases
    assert registered == "complete -o default -F _imageclass_completion imageclass"
    assert done.stderr == ""


@pytest.mark.parametrize(("shell", "first"), [("zsh", "#compdef imageclass"), ("fish", "complete ")])
def test_other_shells_have_their_scripts(script: Path, shell: str, first: str) -> None:
    done = run(script, "completion", shell)
    assert done.stdout.lstrip().startswith(first)
    assert f"_IMAGECLASS_COMPLETE=complete_{shell}" in done.stdout
