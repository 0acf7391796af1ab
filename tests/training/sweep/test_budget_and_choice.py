"""A sweep begins with what `fit` would choose, keeps to its budget, and publishes nothing that is worse."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.contract.store import ModelStore
from training.__main__ import cli
from training.errors import DivergedError
from training.fitting.checkpoint import Checkpoint
from training.fitting.fit import fit as train
from training.fitting.history import Epoch
from training.model.presets import preset_named
from training.options import FitOptions, with_backbone, with_recipe
from training.progress import Reporter
from training.report.robustness import answers_needed
from training.sweep import halving
from training.sweep.candidates import Candidate, candidate_of, neighbours
from training.sweep.halving import Sweep, publish_best, run_trials

CHOICE = with_recipe(preset_named("photos"), {"validation": 0.2})
SPEC = CHOICE.preprocessing.model_copy(update={"height": 32, "width": 32})
EPOCH = Epoch(1.0, 0.5, 1.0, 0.5, 1.0, 0.001, 10.0, None)


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small photos, of stripes that lie or stand."""
    folder, random = tmp_path_factory.mktemp("few") / "photos", np.random.default_rng(0)
    for label, turns in (("lying", 0), ("standing", 1)):
        (folder / label).mkdir(parents=True)
        for number in range(30):
            wave = 128 + 90 * np.sin(np.arange(130) * random.uniform(0.3, 0.9) + random.uniform(0, 6))
            picture = np.repeat(
                np.tile(np.rot90(wave[:, None], turns), (1, 130) if not turns else (130, 1))[..., None], 3, 2
            )
            noisy = np.clip(picture * random.uniform(0.5, 1, 3) + random.normal(0, 25, (130, 130, 3)), 0, 255)
            cv2.imwrite(str(folder / label / f"{number}.png"), noisy.astype(np.uint8))
    return folder


def invoke(command: str, data: Path, store: Path, arguments: str = "") -> Result:
    words = [command, "--data", str(data), "--name", "d", "--model-store", str(store), *arguments.split()]
    return CliRunner().invoke(cli, words)


@pytest.mark.parametrize("effort", ["", "--effort quick"])
def test_the_first_candidate_is_what_fit_would_train(
    effort: str, few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[FitOptions, list[str]]] = []

    def train_on(prepared: object, options: FitOptions, splits: Any, **others: object) -> object:
        seen.append((options, [picture.id for split in splits.values() for picture in split.pictures]))
        raise KeyboardInterrupt

    monkeypatch.setattr("training.pipeline.train_on", train_on)
    monkeypatch.setattr("training.sweep.halving.train_on", train_on)
    for command in ("fit", "sweep --budget 1h"):
        name, _, options = command.partition(" ")
        assert invoke(name, few_photos, tmp_path, f"{options} {effort} --size 96").exit_code == 130
    assert seen[0] == seen[1]
    assert seen[0][0].preset.name == ("photos_quick" if effort else "photos")


def test_a_budget_too_short_for_the_choice_is_reported_before_any_training(few_photos: Path, tmp_path: Path) -> None:
    done = invoke("sweep", few_photos, tmp_path, "--budget 5s")
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "The budget of 5 s is too short: what fit chooses, photos, takes about" in line
    assert "Give --budget 1m or more" in line


@dataclass
class Bench:
    """Trainings that take no time but on a clock of their own, and have this share of the validation pictures right."""

    accuracy: Callable[[Candidate], float]
    an_epoch: float = 60.0
    maps: float = 100.0
    publishing: float = 30.0
    slow_from: float = float("inf")
    """When epochs begin to take five times as long."""
    now: float = 0.0

    def __post_init__(self) -> None:
        self.mapped: set[str] = set()
        self.trained: list[str] = []
        self.published: list[FitOptions] = []

    def monotonic(self) -> float:
        return self.now

    def train_on(
        self,
        prepared: object,
        options: FitOptions,
        splits: Mapping[str, Any],
        *,
        keep: Callable[[Checkpoint], None],
        **_: Any,
    ) -> Any:
        preset = options.preset
        assert preset.backbone is not None
        self.now += 10.0 if preset.backbone.fine_tune_from in self.mapped else self.maps
        self.mapped.add(preset.backbone.fine_tune_from)
        self.trained.append(candidate_of(preset).name)
        begun = self.now
        for number in range(preset.recipe.epochs):
            self.now += self.an_epoch * (5 if self.now >= self.slow_from else 1)
            keep(Checkpoint((EPOCH,) * (number + 1), self.now - begun, None, {}))
        result = SimpleNamespace(seconds=self.now - begun, epochs=(EPOCH,) * preset.recipe.epochs)
        return SimpleNamespace(result=result)

    def measure(self, candidate: Candidate, *others: object) -> None:
        candidate.right = np.arange(200) < round(200 * self.accuracy(candidate))
        candidate.seconds_per_answer = (self.publishing - 5) / (200 + answers_needed(200, SPEC))

    def publish(self, trained: object, options: FitOptions, *others: object, **named: object) -> None:
        self.now += self.publishing
        self.published.append(options)


@pytest.fixture
def sweep_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few_digits: Path) -> Callable[[Bench, float], Sweep]:
    def run(bench: Bench, budget: float) -> Sweep:
        monkeypatch.setattr(halving, "time", bench)
        monkeypatch.setattr(halving, "train_on", bench.train_on)
        monkeypatch.setattr(halving, "_measure", bench.measure)
        monkeypatch.setattr(halving, "publish_trained", bench.publish)
        quick = with_recipe(preset_named("photos_quick"), {"validation": 0.2})
        candidates = [candidate_of(preset) for preset in (CHOICE, quick, *neighbours(CHOICE))]
        sweep = Sweep(candidates, 0.0, candidates[0])
        options = FitOptions(
            data=str(few_digits), name="d", preset=CHOICE, model_store=tmp_path, size=(SPEC.height, SPEC.width)
        )
        with sweep:
            prepared = run_trials(sweep, options, budget=budget, reporter=Reporter())
            publish_best(sweep, prepared, options, budget=budget, reporter=Reporter())
        return sweep

    return run


@pytest.mark.parametrize("budget", [600.0, 1200.0, 3600.0])
@pytest.mark.parametrize("an_epoch", [20.0, 60.0])
def test_the_budget_is_kept(budget: float, an_epoch: float, sweep_on: Callable[[Bench, float], Sweep]) -> None:
    bench = Bench(lambda candidate: 0.9, an_epoch=an_epoch)
    sweep_on(bench, budget)
    assert bench.trained[0] == "photos"
    assert bench.trained[1] == "photos_quick"
    assert len(bench.trained) >= 4
    assert 0.9 * budget <= bench.now <= 1.1 * budget


def test_a_training_that_becomes_slow_is_stopped(sweep_on: Callable[[Bench, float], Sweep]) -> None:
    bench = Bench(lambda candidate: 0.9, slow_from=290.0)
    sweep = sweep_on(bench, 700.0)
    assert "out of time" in [candidate.state for candidate in sweep.candidates]
    assert bench.now <= 1.1 * 700.0 + 240.0  # the epoch that showed it
    assert bench.published[0].preset == CHOICE


def test_what_is_not_better_than_the_choice_is_not_published(sweep_on: Callable[[Bench, float], Sweep]) -> None:
    bench = Bench(lambda candidate: 0.9 if candidate.preset == CHOICE else 0.895)
    sweep = sweep_on(bench, 1200.0)
    assert [options.preset for options in bench.published] == [CHOICE]
    assert sweep.verdict().startswith("best: photos, validation accuracy 90.00%, what fit chooses by itself")
    assert not list(ModelStore(bench.published[0].model_store).root.rglob("checkpoint.npz"))


def test_what_is_better_than_the_choice_is_published_as_it_was_trained(
    sweep_on: Callable[[Bench, float], Sweep],
) -> None:
    bench = Bench(lambda candidate: 0.95 if candidate.preset.recipe.mixup else 0.9)
    sweep = sweep_on(bench, 1200.0)
    (options,) = bench.published
    assert options.preset.recipe.mixup == 0.2
    assert "photos --mixup 0.2, validation accuracy 95.00%; what fit chooses by itself, photos, has 90.00% (p = " in (
        sweep.verdict()
    )


def test_if_the_choice_fails_the_best_of_the_others_is_published(sweep_on: Callable[[Bench, float], Sweep]) -> None:
    bench = Bench(lambda candidate: 0.9)
    train_on = bench.train_on

    def fail_first(prepared: object, options: FitOptions, *others: Any, **named: Any) -> object:
        if options.preset == CHOICE:
            raise DivergedError("The loss became nan.")
        return train_on(prepared, options, *others, **named)

    bench.train_on = fail_first  # type: ignore[method-assign]
    sweep = sweep_on(bench, 1200.0)
    assert sweep.candidates[0].state == "failed"
    assert bench.published


def test_neighbours_differ_in_one_option_and_are_named_by_it() -> None:
    names = [candidate_of(preset).name for preset in neighbours(preset_named("photos"))]
    assert names[0] == "photos --learning-rate 0.001"
    assert "photos --fine-tune-from block9" in names
    assert "photos --epochs 6" in names
    assert len(set(names)) == len(names)
    few = with_backbone(with_recipe(preset_named("photos"), {"epochs": 20}), {"fine_tune_from": "block15"})
    assert candidate_of(few).name == "photos --epochs 20 --fine-tune-from block15" or candidate_of(few).name == (
        "photos --fine-tune-from block15 --epochs 20"
    )
    assert all(preset.recipe.epochs == 0 for preset in neighbours(preset_named("photos_quick")))


@pytest.mark.long
def test_the_best_so_far_of_a_sweep_on_photos_can_be_gone_on_with(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter([False, True])

    def stopped_in_the_second(*arguments: Any, **options: Any) -> object:
        if next(calls):
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr("training.fitting.resumable_training.fit", stopped_in_the_second)
    tries = "--try photos --try photos@0.001 --size 32 --validation 0.3 --budget 1h"
    stopped = invoke("sweep", few_photos, tmp_path, tries)
    assert stopped.exit_code == 130, stopped.output
    monkeypatch.undo()
    assert ModelStore(tmp_path).versions("d") == []
    (line,) = [line for line in stopped.stderr.splitlines() if "To resume after its last epoch: " in line]
    words = shlex.split(line.partition("To resume after its last epoch: ")[2])
    resumed = CliRunner().invoke(cli, [*words[3:], "--no-report"])
    assert resumed.exit_code == 0, resumed.output
    assert "epoch 1/3" not in resumed.stderr
    assert ModelStore(tmp_path).versions("d") == [1]
