"""A training that is killed, or that loses its disk or its data, goes on from its last epoch."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner, Result

from app.contract.bundle import open_bundle
from app.contract.store import ModelStore
from app.engines.loading import load_model
from tests.photos import write_photos
from training.__main__ import cli

EPOCHS = 5
ALL_DIGITS = ["--data", "digits", "--size", "14"]
"""So that an epoch takes long enough to be killed in it."""
THOROUGH = ["--deterministic", "--weight-averaging", "0.9", "--mixup", "0.2", "--schedule", "one_cycle"]
TENSORFLOW_ON_ONE_CORE = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@pytest.fixture
def fit(few_digits: Path) -> list[str]:
    return [
        "fit",
        "--preset",
        "seed",
        "--data",
        str(few_digits),
        "--name",
        "d",
        "--epochs",
        str(EPOCHS),
        "--batch-size",
        "64",
        "--no-report",
    ]


def start(arguments: Sequence[str], store: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments, "--model-store", str(store)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **TENSORFLOW_ON_ONE_CORE},
    )


def wait_for(process: "subprocess.Popen[str]", beginning: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(beginning):
            return
    raise AssertionError(f"the process ended without a line that begins with {beginning!r}")


def finish(process: "subprocess.Popen[str]") -> str:
    _, rest = process.communicate(timeout=300)
    return rest


def invoke(*arguments: str, store: Path) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--model-store", str(store)])


def weights(bundle: Path) -> dict[str, np.ndarray[Any, Any]]:
    reader = tf.train.load_checkpoint(str(bundle / "variables" / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name.startswith("weights")}


def errors(text: str) -> list[str]:
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_killed_again_and_again_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path, fit: list[str]) -> None:
    unbroken = start([*fit, *ALL_DIGITS, *THOROUGH], tmp_path / "unbroken")
    finish(unbroken)
    assert unbroken.returncode == 0

    moments = np.random.default_rng(os.getpid())
    killed = tmp_path / "killed"
    for epoch in (1, 3):
        process = start([*fit, *ALL_DIGITS, *THOROUGH, "--resume"], killed)
        wait_for(process, f"epoch {epoch}/{EPOCHS}")
        time.sleep(moments.uniform(0, 0.4))  # any moment of the next epoch, or of writing the checkpoint
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert ModelStore(killed).versions("d") == []
    last = start([*fit, *ALL_DIGITS, *THOROUGH, "--resume"], killed)
    said = finish(last)
    assert last.returncode == 0
    assert f"epoch 1/{EPOCHS}" not in said

    one, other = tmp_path / "unbroken" / "d" / "1", killed / "d" / "1"
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    assert len(expected) == 8
    for name, weight in expected.items():
        assert weight.tobytes() == found[name].tobytes(), name
    metrics = open_bundle(one).manifest.metrics
    for figure, value in open_bundle(other).manifest.metrics.items():
        assert figure == "fit_seconds" or value == metrics[figure]
    assert not (killed / "d" / ".runs").exists()


KILLED_IN_FINE_TUNING = """
import os, signal, sys
from typer.testing import CliRunner
from training.__main__ import cli
from training.fitting.run_folder import RunFolder

arguments, unbroken, killed = sys.argv[3:], sys.argv[1], sys.argv[2]
done = CliRunner().invoke(cli, [*arguments, "--model-store", unbroken])
sys.exit(done.output) if done.exit_code else None
keep = RunFolder.keep

def keep_and_die(self, checkpoint):
    keep(self, checkpoint)
    os.kill(os.getpid(), signal.SIGKILL)

RunFolder.keep = keep_and_die
CliRunner().invoke(cli, [*arguments, "--model-store", killed])
"""


@pytest.mark.long
def test_photos_whose_fine_tuning_is_killed_end_with_the_weights_of_an_unbroken_run(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", ["hat", "shirt", "shoe"], of_each=60)
    fit = ["fit", "--preset", "photos", "--data", str(photos), "--name", "d", "--size", "64", "--epochs", "3"]
    fit += ["--validation", "0.3", "--deterministic", "--mixup", "0.2", "--class-weights", "balanced"]
    fit += ["--early-stopping", "2", "--weight-averaging", "0.9", "--no-report"]
    environment = {**os.environ, **TENSORFLOW_ON_ONE_CORE, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def python(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    ended = python("-c", KILLED_IN_FINE_TUNING, unbroken, killed, *fit)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ModelStore(killed).versions("d") == []
    resumed = python("-m", "training", *fit, "--resume", "--model-store", killed)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 1/3" not in resumed.stderr
    assert "epoch 2/3" in resumed.stderr
    assert "calibrated: the softmax is that of logits" in resumed.stderr

    expected, found = weights(unbroken / "d" / "1"), weights(killed / "d" / "1")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert weight.tobytes() == found[name].tobytes(), name
    same = {"train", "validation", "test", "calibration", "head_accuracy", "best_epoch"}
    one, other = (open_bundle(store / "d" / "1").metrics() for store in (unbroken, killed))
    assert {name: one[name] for name in same} == {name: other[name] for name in same}


@pytest.fixture
def full_disk_after_two_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the third checkpoint find no room, as a full disk tells it."""
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr("app.system.atomic_write.os.fsync", full)


@pytest.mark.usefixtures("full_disk_after_two_epochs")
def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path, fit: list[str]) -> None:
    done = invoke(*fit, store=tmp_path)
    assert done.exit_code == 1
    (line,) = errors(done.stderr)
    assert "full" in line
    assert "The checkpoint of epoch 2 stays" in line
    assert "--resume" in line
    (run,) = (tmp_path / "d" / ".runs").iterdir()
    assert {file.name for file in run.iterdir()} == {"checkpoint.npz", "run.json", "lock"}

    resumed = invoke(*fit, "--resume", store=tmp_path)
    assert resumed.exit_code == 0, resumed.output
    assert f"epoch 2/{EPOCHS}" not in resumed.stderr
    assert f"epoch 3/{EPOCHS}" in resumed.stderr
    assert not (tmp_path / "d" / ".runs").exists()


@pytest.mark.usefixtures("full_disk_after_two_epochs")
def test_a_run_goes_on_only_as_it_was_started(tmp_path: Path, fit: list[str]) -> None:
    assert invoke(*fit, store=tmp_path).exit_code == 1
    done = invoke(*fit, "--learning-rate", "0.01", "--resume", store=tmp_path)
    assert done.exit_code == 1
    (line,) = errors(done.stderr)
    assert "--learning-rate was 0.001 and is 0.01" in line
    data = tmp_path / "other.npz"
    digits = np.random.default_rng(0)
    np.savez(data, x_train=digits.integers(0, 256, (90, 8, 8), np.uint8), y_train=np.arange(90) % 10)
    (line,) = errors(invoke(*fit, "--data", str(data), "--resume", store=tmp_path).stderr)
    assert "--data was digits.npz and is other.npz" in line
    assert (tmp_path / "d" / ".runs" / "1" / "checkpoint.npz").exists()

    anew = invoke(*fit, "--epochs", "1", store=tmp_path)
    assert anew.exit_code == 0, anew.output
    assert "is unfinished: --resume" in anew.stderr
    assert (tmp_path / "d" / ".runs" / "1" / "checkpoint.npz").exists()


def test_without_an_unfinished_run_resume_starts_one(tmp_path: Path, fit: list[str]) -> None:
    done = invoke(*fit, "--epochs", "1", "--resume", store=tmp_path)
    assert done.exit_code == 0, done.output
    assert "no unfinished run" in done.stderr


def test_a_run_that_is_killed_once_it_has_published_does_not_publish_again(
    tmp_path: Path, fit: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> Any:
        if folder == tmp_path / "d" / "1":  # in its place, no longer beside it
            raise KeyboardInterrupt
        return load_model(folder)

    monkeypatch.setattr("training.bundling.export.load_model", killed)
    assert invoke(*fit, store=tmp_path).exit_code == 130
    monkeypatch.undo()
    left = tmp_path / "d" / ".runs" / "1"
    assert (left / "checkpoint.npz").exists()

    other = invoke(*fit, "--learning-rate", "0.01", "--resume", store=tmp_path)
    assert other.exit_code == 1
    assert "--learning-rate was" in other.stderr

    resumed = invoke(*fit, "--resume", store=tmp_path)
    assert resumed.exit_code == 0, resumed.output
    assert "had published version 1" in resumed.stderr
    assert f"{tmp_path / 'd' / '1'}: test accuracy" in resumed.stdout
    assert "epoch" not in resumed.stderr
    assert ModelStore(tmp_path).versions("d") == [1]
    assert not left.exists()


@pytest.mark.slow
def test_data_lost_during_training_is_one_line_and_the_run_resumes_when_it_is_back(
    tmp_path: Path,
) -> None:
    photos, store = tmp_path / "photos", tmp_path / "store"
    shades = np.random.default_rng(0)
    for label in ("dark", "light"):
        (photos / label).mkdir(parents=True)
        for index in range(20):
            picture = shades.integers(0, 100, (16, 16), np.uint8) + (100 if label == "light" else 0)
            (photos / label / f"{index}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    arguments = ["fit", "--preset", "seed", "--data", str(photos), "--name", "d", "--epochs", "30"]
    arguments += ["--no-cache", "--no-report"]
    process = start(arguments, store)
    wait_for(process, "epoch 1/30")
    photos.rename(tmp_path / "elsewhere")
    said = finish(process)
    assert process.returncode == 1
    (line,) = errors(said)
    assert re.search(r"(dark|light)/\d+\.png", line)
    assert "--resume" in said

    shutil.move(tmp_path / "elsewhere", photos)
    done = invoke(*arguments, "--resume", store=store)
    assert done.exit_code == 0, done.output
    assert ModelStore(store).versions("d") == [1]


def test_two_runs_of_one_name_do_not_take_each_others_checkpoint(tmp_path: Path, fit: list[str]) -> None:
    process = start([*fit, "--epochs", "100000"], tmp_path)
    wait_for(process, "epoch 2/")
    done = invoke(*fit, "--epochs", "1", "--resume", store=tmp_path)
    process.kill()
    finish(process)
    assert done.exit_code == 0, done.output
    assert "no unfinished run" in done.stderr
    assert (tmp_path / "d" / ".runs" / "1" / "checkpoint.npz").exists()


def test_logs_are_a_table_and_events_for_tensorboard(tmp_path: Path, fit: list[str]) -> None:
    done = invoke(*fit, "--epochs", "2", "--validation", "0.1", "--logs", str(tmp_path / "logs"), store=tmp_path)
    assert done.exit_code == 0, done.output
    header, *rows = (tmp_path / "logs" / "epochs.csv").read_text().splitlines()
    assert header.startswith("epoch,loss,accuracy,validation_loss,validation_accuracy,seconds,learning_rate")
    assert [row.split(",")[0] for row in rows] == ["1", "2"]
    found: dict[str, list[int]] = {}
    for file in (tmp_path / "logs").glob("*/events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(f"{file.parent.name}/{value.tag}", []).append(event.step)
    assert found["train/loss"] == found["validation/loss"] == found["train/learning rate"] == [1, 2]
