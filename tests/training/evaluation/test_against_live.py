"""A new version that is significantly worse than the live one is published, and held back."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.__main__ import cli as app_cli
from app.contract.bundle import open_bundle
from app.contract.store import ModelStore
from app.engines.loading import load_model
from training.__main__ import cli
from training.evaluation.against_live import AgainstLive
from training.evaluation.compare.paired import Paired

FIT = ["fit", "--preset", "seed", "--data", "digits", "--name", "digits", "--epochs", "1", "--no-report"]
WORSE = ["--batch-size", "full", "--optimizer", "sgd"]
"""One step of gradient descent, against two epochs of the same network."""


def run(*arguments: str, store: Path) -> Result:
    done = CliRunner().invoke(cli, [*arguments, "--model-store", str(store)])
    assert done.exit_code == 0, done.output
    return done


def comparison(store: Path, version: int) -> dict[str, Any]:
    found: dict[str, Any] = open_bundle(store / "digits" / str(version)).metrics()["against_live"]
    return found


def why_not_compared(done: Result, store: Path) -> str:
    """Return the one line that says so of version 2, which is not held back."""
    (line,) = [line for line in done.stderr.splitlines() if "version 2 is not compared with the live version" in line]
    assert ModelStore(store).serving_order("digits", None)[0] == 2
    assert comparison(store, 2)["held_back"] is False
    assert comparison(store, 2)["not_compared"] in line
    return line


def test_a_worse_version_is_held_back_and_the_last_line_is_the_promote_command(copy_of_store: Path) -> None:
    done = run(*FIT, *WORSE, "--keep", "1", store=copy_of_store)
    store = ModelStore(copy_of_store)
    assert store.versions("digits") == [1, 2], "the live version stays, whatever --keep says"
    assert store.serving_order("digits", None) == [1]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("published, but held back: version 2 is significantly worse than version 1, which was live")
    assert "serve it:" not in done.stderr
    found = comparison(copy_of_store, 2)
    assert found["held_back"]
    assert (
        found["pictures"]
        == found["both_right"] + found["only_live_right"] + found["only_new_right"] + (found["neither_right"])
    )
    assert found["only_new_right"] < found["only_live_right"]
    assert found["p_value"] < found["level"] == 0.05
    command = shlex.split(last.rpartition("same: ")[2])
    assert command[1:3] == ["-m", "app"]
    assert CliRunner().invoke(app_cli, command[3:]).exit_code == 0
    assert store.serving_order("digits", None) == [2, 1]


def test_a_version_that_is_as_good_goes_live(copy_of_store: Path) -> None:
    done = run(*FIT, "--epochs", "3", store=copy_of_store)
    assert "against the live version 1: " in done.stderr
    assert "serve it:" in done.stderr.splitlines()[-1]
    assert ModelStore(copy_of_store).serving_order("digits", None) == [2, 1]
    found = comparison(copy_of_store, 2)
    assert (found["live"], found["left_out"], found["not_compared"], found["held_back"]) == (1, 0, None, False)


def test_a_first_version_has_none_to_be_compared_with(tmp_path: Path, few_digits: Path) -> None:
    done = run(*FIT, "--data", str(few_digits), store=tmp_path)
    assert "live version" not in done.stderr
    assert comparison(tmp_path, 1)["live"] is None


def test_pictures_that_the_live_version_has_learned_are_left_out(copy_of_store: Path) -> None:
    done = run(*FIT, *WORSE, "--seed", "5", store=copy_of_store)
    found = comparison(copy_of_store, 2)
    assert found["left_out"] > 200
    assert f"({found['left_out']:,} test pictures that it was trained on are left out)" in done.stderr
    assert 50 < found["pictures"] < 100
    assert found["held_back"], "what is left is enough to see that"


def test_too_few_pictures_hold_nothing_back(copy_of_store: Path) -> None:
    done = run(*FIT, *WORSE, "--seed", "5", "--test", "0.01", store=copy_of_store)
    assert "that version 1 was not trained on are not enough" in why_not_compared(done, copy_of_store)


def test_without_test_pictures_nothing_is_held_back(copy_of_store: Path) -> None:
    done = run(*FIT, *WORSE, "--test", "0", store=copy_of_store)
    assert "There are no test pictures." in why_not_compared(done, copy_of_store)


def test_a_live_version_of_other_classes_holds_nothing_back(
    copy_of_store: Path, few_digits: Path, tmp_path: Path
) -> None:
    with np.load(few_digits) as digits:
        kept = digits["y_train"] < 9
        np.savez(tmp_path / "nine.npz", x_train=digits["x_train"][kept], y_train=digits["y_train"][kept])
    done = run(*FIT, *WORSE, "--data", str(tmp_path / "nine.npz"), store=copy_of_store)
    assert "Version 1 has other classes." in why_not_compared(done, copy_of_store)


def test_a_live_version_that_cannot_be_loaded_holds_nothing_back(copy_of_store: Path) -> None:
    (copy_of_store / "digits" / "1" / "saved_model.pb").write_bytes(b"")
    assert "saved_model.pb is not the file" in why_not_compared(run(*FIT, *WORSE, store=copy_of_store), copy_of_store)


def test_a_run_killed_before_its_version_is_visible_holds_it_back_after_resume(copy_of_store: Path) -> None:
    kill = (
        "import os, signal, sys; from app.contract.store import ModelStore; from pathlib import Path; "
        "publish = ModelStore.publish\n"
        "def killed(*given, **more):\n"
        "    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    publish(*given, **more)\n"
        "ModelStore.publish = killed\n"
        "from training.__main__ import cli; cli(sys.argv[1:])"
    )
    arguments = [*FIT, *WORSE, "--model-store", str(copy_of_store)]
    ended = subprocess.run([sys.executable, "-c", kill, *arguments], env=os.environ, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    store = ModelStore(copy_of_store)
    assert store.held_back("digits") == {2}
    assert store.versions("digits") == store.serving_order("digits", None) == [1]
    last = run(*FIT, *WORSE, "--resume", store=copy_of_store).stderr.splitlines()[-1]
    assert last.startswith("published, but held back: version 2")
    assert (store.versions("digits"), store.held_back("digits")) == ([1, 2], {2})


def test_a_run_that_is_killed_once_it_has_published_says_so_again_when_it_goes_on(
    copy_of_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> Any:
        if folder == copy_of_store / "digits" / "2":
            raise KeyboardInterrupt
        return load_model(folder)

    monkeypatch.setattr("training.bundling.export.load_model", killed)
    stopped = CliRunner().invoke(cli, [*FIT, *WORSE, "--model-store", str(copy_of_store)])
    assert stopped.exit_code == 130, stopped.output
    monkeypatch.undo()
    resumed = run(*FIT, *WORSE, "--resume", store=copy_of_store)
    assert "had published version 2" in resumed.stderr
    assert resumed.stderr.splitlines()[-1].startswith("published, but held back: version 2")
    assert ModelStore(copy_of_store).versions("digits") == [1, 2]


@pytest.mark.slow
def test_the_winner_of_a_sweep_is_held_back_in_the_same_way(copy_of_store: Path) -> None:
    tried = ["--try", "seed@0.0000001", "--try", "seed@0.0000002", "--budget", "1s"]
    done = run("sweep", "--data", "digits", "--name", "digits", *tried, store=copy_of_store)
    assert done.stderr.splitlines()[-1].startswith("published, but held back: version 2")


@pytest.mark.parametrize(
    ("only_live", "only_new", "is_worse"), [(6, 0, True), (5, 0, False), (0, 6, False), (40, 30, False), (60, 30, True)]
)
def test_only_a_significant_difference_to_the_worse_holds_back(only_live: int, only_new: int, is_worse: bool) -> None:
    found = AgainstLive(2, 1, paired=Paired(both=100, only_a=only_live, only_b=only_new, neither=10))
    assert found.is_worse == is_worse
    assert (found.why_held_back() is not None) == is_worse
    assert found.as_dict()["held_back"] == is_worse
