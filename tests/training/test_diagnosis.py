"""Runs made to have one problem are told it, and healthy ones nothing: real trainings on scikit-learn's digits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from app.contract.preprocessing import PreprocessingSpec
from tests.training.fit_options import fit_options
from training.__main__ import cli
from training.data.dataset import Split
from training.data.preprocessing import PictureKind
from training.diagnosis import Facts, diagnose
from training.evaluation.calibration.error import debiased_error
from training.fitting.history import Epoch
from training.model.layers import Conv2D, Dense, Flatten, GlobalAveragePool2D, Layer, MaxPool2D
from training.model.preset import Augmentation, Preset, Recipe
from training.model.presets import preset_named
from training.pipeline import train_and_publish
from training.progress import Reporter

pytestmark = pytest.mark.slow

ENOUGH: tuple[Layer, ...] = (Conv2D(16, padding="same"), MaxPool2D(), Conv2D(32, padding="same"), Flatten(), Dense(32))
Diagnosed = Callable[..., list[dict[str, str]]]


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    found = load_digits()
    return (found.images * 15).astype(np.uint8), found.target


@pytest.fixture
def diagnosed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diagnosed:
    """Train on pictures and labels, or on the digits, and return the problems in the bundle that was published.

    `waits` is the share of each epoch in which the network waits for its input: how long it truly does depends on what
    else the machine is at. Intervals of the calibration error, which no finding is made of, are drawn coarsely.
    """
    coarsely = partial(debiased_error, draws=10)
    monkeypatch.setattr("training.evaluation.calibration.figures.debiased_error", coarsely)

    def train(
        data: dict[str, Any] | None = None,
        *,
        layers: tuple[Layer, ...] = ENOUGH,
        leaks: bool = False,
        waits: float = 0.0,
        **recipe: Any,
    ) -> list[dict[str, str]]:
        monkeypatch.setattr("training.fitting.fit.Epoch", lambda **facts: Epoch(**{**facts, "input_wait": waits}))
        source = "digits"
        if data is not None:
            source = str(tmp_path / "data.npz")
            np.savez(source, **data)
        preset = Preset(
            name="seed",
            summary="",
            preprocessing=PreprocessingSpec(height=8, width=8, colour="grey"),
            layers=layers,
            recipe=Recipe(**{"epochs": 6, "validation": 0.15, "learning_rate": 0.003, **recipe}),
        )
        options = fit_options(tmp_path / "store", preset, data=source, allow_leakage=leaks, cache=False, report=False)
        problems: list[dict[str, str]] = train_and_publish(options, Reporter()).bundle.metrics()["diagnosis"]
        return problems

    return train


def names(problems: list[dict[str, str]]) -> list[str]:
    return [problem["name"] for problem in problems]


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param({}, id="adam"),
        pytest.param({"validation": 0.0}, id="no validation"),
        pytest.param(
            {"optimizer": "adamw", "schedule": "one_cycle", "batch_size": 64, "epochs": 10},
            id="one cycle",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"optimizer": "momentum", "learning_rate": 0.05, "augmentation": Augmentation(5, 0.05), "epochs": 8},
            id="augmented",
            marks=pytest.mark.long,
        ),
        pytest.param({"loss": "mse", "epochs": 10}, id="mse", marks=pytest.mark.long),
    ],
)
def test_a_healthy_run_is_told_nothing(diagnosed: Diagnosed, recipe: dict[str, Any]) -> None:
    assert diagnosed(**recipe) == []


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_that_is_too_low(diagnosed: Diagnosed, optimizer: str) -> None:
    problems = diagnosed(optimizer=optimizer, learning_rate=1e-6, epochs=4)
    assert names(problems)[0] == "learning rate too low"
    usual = {"adam": "0.001", "sgd": "0.05"}[optimizer]
    assert f"--learning-rate {usual} " in problems[0]["command"]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_that_is_too_high(diagnosed: Diagnosed, optimizer: str) -> None:
    problems = diagnosed(optimizer=optimizer, learning_rate=10.0, epochs=4)
    assert names(problems)[0] == "learning rate too high"


def test_too_small_a_network_underfits(diagnosed: Diagnosed) -> None:
    assert names(diagnosed(layers=(Conv2D(2), GlobalAveragePool2D()), epochs=10)) == ["underfitting"]


def test_too_short_a_training_underfits_and_is_told_to_go_on(diagnosed: Diagnosed) -> None:
    problems = diagnosed(epochs=1, batch_size=256)
    assert "underfitting" in names(problems)
    assert "--epochs 3 " in problems[0]["command"]
    assert "and 1 epoch ended before the loss" in problems[0]["evidence"]


def test_one_label_in_five_wrong(diagnosed: Diagnosed) -> None:
    images, labels = digits()
    random = np.random.default_rng(0)
    wrong = random.random(len(labels)) < 0.2
    labels = np.where(wrong, (labels + random.integers(1, 10, len(labels))) % 10, labels)
    problems = diagnosed({"x_train": images, "y_train": labels})
    assert names(problems)[0] == "label noise"
    assert problems[0]["command"] == "python -m training audit --data data.npz"


def test_a_large_network_on_a_few_noisy_pictures_overfits(diagnosed: Diagnosed) -> None:
    images, labels = digits()
    noisy = np.clip(images + np.random.default_rng(0).normal(0, 90, images.shape), 0, 255).astype(np.uint8)
    data = {"x_train": noisy[:300], "y_train": labels[:300], "x_test": noisy[300:], "y_test": labels[300:]}
    problems = diagnosed(data, layers=(Conv2D(64), Flatten(), Dense(256)), validation=0.0, epochs=20)
    assert names(problems) == ["overfitting"]


@pytest.mark.parametrize(
    ("preset", "train", "test", "expected"),
    [
        ("seed", (0.9983, 0.0051), (0.9898, 0.0436), ["overfitting"]),
        ("quick", (0.9952, 0.0162), (0.9939, 0.0201), []),
        ("handwriting", (0.9981, 0.0082), (0.9960, 0.0115), []),
    ],
)
def test_figures_on_mnist(
    preset: str, train: tuple[float, float], test: tuple[float, float], expected: list[str]
) -> None:
    options = fit_options(Path("store"), preset_named(preset), data="mnist")
    epochs = [{"loss": loss, "accuracy": train[0], "validation_loss": None} for loss in (0.2, 0.05, train[1])]
    scores: dict[Split, dict[str, float] | None] = {
        "train": {"accuracy": train[0], "loss": train[1], "pictures": 60_000},
        "validation": None,
        "test": {"accuracy": test[0], "loss": test[1], "pictures": 10_000},
    }
    counts: dict[Split, dict[str, int]] = {
        "train": {str(digit): 6000 for digit in range(10)},
        "validation": {},
        "test": {str(digit): 1000 for digit in range(10)},
    }
    found = diagnose(
        Facts(options, counts, PictureKind(28, 28, has_colour=False), epochs, None, scores, audit={}, answers=None)
    )
    assert [problem.name for problem in found] == expected
    assert all("0.0051 on the former" in problem.evidence for problem in found)


def test_three_pictures_of_a_class_are_too_few(diagnosed: Diagnosed) -> None:
    images, labels = digits()
    kept = np.flatnonzero((labels != 7) | (np.cumsum(labels == 7) <= 5))
    problems = diagnosed({"x_train": images[kept], "y_train": labels[kept]})
    assert names(problems) == ["too little data for a class"]
    assert "7 (3)" in problems[0]["evidence"]
    assert "--class-weights balanced" in problems[0]["command"]


def test_pictures_that_are_learned_and_tested_on(diagnosed: Diagnosed) -> None:
    images, labels = digits()
    data = {"x_train": images[:1400], "y_train": labels[:1400], "x_test": images[1300:], "y_test": labels[1300:]}
    problems = diagnosed(data, leaks=True)
    assert names(problems) == ["leakage"]
    assert "100 × leakage" in problems[0]["evidence"]
    assert problems[0]["command"] == "python -m training audit --data data.npz --fix cleaned"


def test_twenty_validation_pictures_tell_no_two_models_apart(diagnosed: Diagnosed) -> None:
    problems = diagnosed(validation=0.014)
    assert names(problems) == ["validation set too small"]
    assert "95 % interval" in problems[0]["evidence"]
    assert "--validation 0.2 " in problems[0]["command"]


@pytest.mark.parametrize(("waits", "starves"), [(0.24, False), (0.26, True)])
def test_an_input_that_is_slower_than_the_network(diagnosed: Diagnosed, waits: float, starves: bool) -> None:
    problems = diagnosed(layers=(Flatten(),), batch_size=128, epochs=3, waits=waits)
    assert (names(problems)[-1:] == ["input starving"]) is starves
    assert not starves or "--batch-size 512 " in problems[-1]["command"]


def test_the_terminal_names_the_data_where_it_is_and_the_bundle_by_its_name(tmp_path: Path) -> None:
    images, labels = digits()
    np.savez(tmp_path / "mine.npz", x_train=images[:300], y_train=labels[:300])
    options = f"--name d --preset seed --epochs 1 --no-report --model-store {tmp_path / 'store'}"
    done = CliRunner().invoke(cli, f"fit --data {tmp_path / 'mine.npz'} {options}")
    assert done.exit_code == 0, done.output
    assert "underfitting: It gets " in done.stderr
    assert f"python -m training fit --data {tmp_path / 'mine.npz'}" in done.stderr
    metrics = (tmp_path / "store" / "d" / "1" / "metrics.json").read_text()
    assert "python -m training fit --data mine.npz" in metrics
    assert str(tmp_path) not in metrics
