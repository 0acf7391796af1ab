"""Who loads TensorFlow, who does not, and what a user sees of it."""

import subprocess
import sys

import pytest

NAMES_LOADED = "print(*sorted({'tensorflow', 'keras'} & {name for name in sys.modules if sys.modules[name]}))"


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_help_of_no_command_loads_tensorflow() -> None:
    done = python(
        "import sys\nfrom training.__main__ import cli\n"
        "for command in ('fit', 'sweep', 'evaluate', 'compare', 'audit', 'folds'):\n"
        f"    cli([command, '--help'], standalone_mode=False)\n{NAMES_LOADED}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage") == 6
    assert done.stdout.splitlines()[-1] == ""


def test_presets_data_and_evaluation_load_no_tensorflow() -> None:
    done = python(
        "import importlib, pkgutil, sys\n"
        "import training.data, training.audit, training.evaluation.calibration, training.evaluation.compare\n"
        "import training.evaluation.bundle_evaluation, training.model.presets, training.options\n"
        "for package in (training.data, training.audit, training.model.presets):\n"
        "    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):\n"
        "        importlib.import_module(module.name)\n" + NAMES_LOADED
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


@pytest.mark.parametrize("module", ["training.model.network", "training.pipeline"])
def test_whichever_module_loads_tensorflow_first_does_so_quietly(module: str) -> None:
    done = python(f"import sys, {module}\n{NAMES_LOADED}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "keras tensorflow\n", "")


def test_without_tensorflow_fit_says_how_to_install_it() -> None:
    done = python(
        "import sys\nsys.modules['tensorflow'] = None\n"
        "from training.__main__ import cli\ncli(['fit', '--data', 'digits', '--name', 'd'])"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: TensorFlow is not installed.")
