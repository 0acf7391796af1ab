"""`python -m training` as its users meet it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.contract.bundle import open_bundle
from training.__main__ import cli
from training.model.preset import Loss, OptimizerName

COMMAND = [sys.executable, "-m", "training"]
FIT = ["fit", "--preset", "seed", "--no-report", "--name", "d"]
"""For tests that need a run, and neither a good network nor a report."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of colour photos, JPEG and PNG, that a network can tell apart."""
    random = np.random.default_rng(0)
    for label, channel in (("red", 2), ("blue", 0)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for index in range(20):
            picture = random.integers(0, 60, (40, 60, 3), np.uint8)
            picture[..., channel] += 150
            suffix = ".jpg" if index % 2 else ".png"
            (folder / f"{index:02}{suffix}").write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
    return tmp_path / "photos"


def error_of(*arguments: str) -> str:
    """Run a command that must fail, in process, and return the one line that it says."""
    done = CliRunner().invoke(cli, list(arguments))
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.output
    return line


@pytest.mark.slow
def test_from_a_folder_of_photos_to_a_bundle_and_its_measurement(photos: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    fit = ["fit", "--data", str(photos), "--name", "colours", "--model-store", store, "--validation", "0.1"]
    fit += ["--size", "data", "--colour", "data", "--epochs", "1", "--fine-tune-from", "block15", "--no-report"]
    fitted = CliRunner().invoke(cli, fit)
    assert fitted.exit_code == 0, fitted.stderr
    assert re.fullmatch(r".*colours/1: test accuracy \d+\.\d\d%\n", fitted.stdout)
    manifest = open_bundle(Path(store) / "colours" / "1").manifest
    assert manifest.labels == ("blue", "red")
    recall = manifest.metrics["test.macro_recall"]
    assert f"test macro recall, in which each class counts alike: {recall:.2%}\n" in fitted.stderr
    assert manifest.preprocessing.shape == (40, 60, 3)
    assert str(tmp_path) not in (Path(store) / "colours" / "1" / "manifest.json").read_text()

    evaluate = ["evaluate", "--data", str(photos), "--model", "colours", "--model-store", store]
    measured = CliRunner().invoke(cli, [*evaluate, "--json"])
    assert measured.exit_code == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert found["pictures"] == 8
    assert found["which"] == "the test pictures on record in the bundle"
    assert found["accuracy"] == pytest.approx(manifest.metrics["test.accuracy"])

    table = CliRunner().invoke(cli, [*evaluate, "--split", "all"])
    assert "accuracy" in table.stdout
    assert "macro recall" in table.stdout
    assert "Confusion" in table.stdout


def test_progress_on_a_pipe_is_plain_lines(tmp_path: Path, few_digits: Path) -> None:
    arguments = [*FIT, "--data", str(few_digits), "--epochs", "2", "--model-store", str(tmp_path)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.stderr
    assert "epoch 1/2: loss" in done.stderr
    assert done.stderr.count("epoch 2/2") == 1
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


@pytest.mark.parametrize("loss", ["crossentropy", "mse"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_every_loss_goes_with_every_optimizer(
    tmp_path: Path, few_digits: Path, loss: Loss, optimizer: OptimizerName
) -> None:
    done = CliRunner().invoke(
        cli,
        [
            *FIT,
            *["--data", str(few_digits), "--epochs", "1", "--batch-size", "128"],
            *["--loss", loss, "--optimizer", optimizer, "--model-store", str(tmp_path)],
        ],
    )
    assert done.exit_code == 0, done.output
    recipe = open_bundle(tmp_path / "d" / "1").manifest.training["recipe"]
    assert isinstance(recipe, dict)
    assert (recipe["loss"], recipe["optimizer"]) == (loss, optimizer)


def test_a_full_batch_is_one_step_an_epoch(tmp_path: Path, few_digits: Path) -> None:
    done = CliRunner().invoke(
        cli,
        [
            *FIT,
            *["--data", str(few_digits), "--epochs", "3", "--batch-size", "full"],
            *["--optimizer", "sgd", "--learning-rate", "0.1", "--model-store", str(tmp_path)],
        ],
    )
    assert done.exit_code == 0, done.output
    assert "training: 3 of 3" in done.stderr


def test_the_command_on_record_repeats_the_recipe(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(few_digits.parent)  # the command names the file without its folder
    asked = (
        "--epochs 2 --schedule cosine --warm-up 0.25 --weight-decay 0.05 --label-smoothing 0.1 --mixup 0.3 "
        "--augment-until 0.5 --weight-averaging 0.9 --class-weights balanced --early-stopping 2 "
        "--precision mixed_bfloat16 --steps-per-execution 2 --momentum 0.8 --validation 0.1"
    )
    done = CliRunner().invoke(
        cli,
        f"fit --data {few_digits} --name d --preset handwriting {asked} --drop-remainder --no-report "
        f"--model-store {tmp_path}",
    )
    assert done.exit_code == 0, done.output
    first = open_bundle(tmp_path / "d" / "1").manifest.training
    words = str(first["command"]).removeprefix("python -m training ").split()
    assert CliRunner().invoke(cli, [*words, "--no-report", "--model-store", str(tmp_path)]).exit_code == 0
    second = open_bundle(tmp_path / "d" / "2").manifest.training
    assert second["recipe"] == first["recipe"]
    assert second["command"] == first["command"]
    recipe = first["recipe"]
    assert isinstance(recipe, dict)
    assert recipe["drop_remainder"] is True
    for option, value in zip(asked.split()[::2], asked.split()[1::2], strict=True):
        assert str(recipe[option.removeprefix("--").replace("-", "_")]) == value


def test_a_loss_that_diverges_is_told_with_what_to_try(tmp_path: Path, few_digits: Path) -> None:
    arguments = ["--optimizer", "sgd", "--learning-rate", "1e38", "--model-store", str(tmp_path)]
    assert "--learning-rate" in error_of(*FIT, "--data", str(few_digits), *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--data", "digits", "--preset", "resnet"], "Choose one of: seed"),
        (["--data", "digits", "--batch-size", "none"], "--batch-size"),
        (["--data", "digits", "--size", "big"], "--size"),
        (["--data", "digits", "--size", "6"], "too small"),
        (["--data", "digits", "--learning-rate", "0"], "--learning-rate"),
        (["--data", "digits", "--test", "1.5"], "--test"),
        (["--data", "digits", "--about", "no-such-file.md"], "--about"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    assert words in error_of("fit", "--name", "d", "--model-store", str(tmp_path), *arguments)


def test_a_name_that_is_none_is_one_line(tmp_path: Path) -> None:
    line = error_of("fit", "--data", "digits", "--name", "../evil", "--model-store", str(tmp_path))
    assert "not a model name" in line


def test_bad_pictures_are_named_and_skipped_only_when_asked(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    arguments = [*FIT, "--data", str(photos), "--epochs", "1", "--model-store", str(tmp_path / "store")]
    line = error_of(*arguments)
    assert "red/broken.png" in line
    assert "--on-bad-image skip" in line
    done = CliRunner().invoke(cli, [*arguments, "--on-bad-image", "skip"])
    assert done.exit_code == 0, done.output
    assert "skipped red/broken.png" in done.stderr
    assert open_bundle(tmp_path / "store" / "d" / "1").manifest.training["skipped"] == ["red/broken.png"]


def test_a_list_of_absolute_paths_leaves_none_of_them_in_what_a_service_shows(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    rows = [f"{file},{file.parent.name}" for file in sorted(photos.glob("*/*"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    options = ["--epochs", "1", "--model-store", str(tmp_path / "store"), "--on-bad-image", "skip"]
    done = CliRunner().invoke(cli, [*FIT, "--data", str(tmp_path / "list.csv"), *options])
    assert done.exit_code == 0, done.output
    bundle = tmp_path / "store" / "d" / "1"
    manifest = open_bundle(bundle).manifest
    assert manifest.training["skipped"] == ["broken.png"]
    for shown in (str(manifest.training), (bundle / "MODEL_CARD.md").read_text()):
        assert str(tmp_path) not in shown


def test_one_class_and_an_empty_class_are_told(photos: Path, tmp_path: Path) -> None:
    (photos / "green").mkdir()
    arguments = ["--name", "c", "--model-store", str(tmp_path / "store")]
    assert "green" in error_of("fit", "--data", str(photos), *arguments)
    only = tmp_path / "only" / "red"
    only.parent.mkdir()
    (photos / "red").rename(only)
    assert "at least two" in error_of("fit", "--data", str(only.parent), *arguments)


def test_ctrl_c_ends_cleanly_and_says_what_was_kept(tmp_path: Path, few_digits: Path) -> None:
    store = tmp_path / "store"
    fit = [*FIT, "--data", str(few_digits), "--epochs", "100000", "--model-store", str(store)]
    command = [*COMMAND, *fit]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        begun = ""
        for line in process.stderr:
            begun += line
            if line.startswith("epoch 1/"):
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "\x1b" not in begun, "a pipe gets plain lines"
    assert "\r" not in begun
    assert "Nothing was published" in rest
    assert "Traceback" not in rest
    assert f"To resume after its last epoch: {shlex.join(command)} --resume\n" in rest, "ready to paste"
    assert [path.name for path in (store / "d").iterdir()] == [".runs"]


def test_a_run_killed_at_any_moment_leaves_no_version(tmp_path: Path, few_digits: Path) -> None:
    fit = [*FIT, "--data", str(few_digits), "--epochs", "1", "--model-store", str(tmp_path)]
    command = [*COMMAND, *fit]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("measuring on train"):  # the export is under way
                break
        process.kill()
        process.communicate(timeout=120)
    assert not [path for path in (tmp_path / "d").iterdir() if path.name.isdecimal()]


def test_evaluating_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    line = error_of("evaluate", "--data", "digits", "--model", "d", "--model-store", str(tmp_path / "store"))
    assert "no model 'd'" in line


def test_wrong_usage_is_exit_2() -> None:
    assert run("fit", "--data", "digits").returncode == 2
    assert CliRunner().invoke(cli, ["fit", "--nonsense"]).exit_code == 2


def test_help_needs_no_tensorflow() -> None:
    script = "import sys, training.__main__; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, env=dict(os.environ)).returncode == 0
