"""Try presets and learning rates for a short while each, and train the best of them in the time that is left.

Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) by time, since an epoch of one preset is worth ten of
another: every candidate is trained for one epoch, then for as many as fit into three times the slowest one's, the
better half for three times as long, and so on. One that has had all of its epochs waits for the others. Validation
pictures decide; only the winner sees the test pictures.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from app.contract.store import ModelStore
from app.engines.loading import LoadedModel
from app.system.wording import count_of
from training.bundling.export import check_can_publish
from training.data.preprocessing import preprocessing_for
from training.errors import OptionError, TrainingError
from training.evaluation.compare.paired import Paired
from training.evaluation.score import predict_all, score
from training.fitting.fit import fit
from training.model.network import build_network
from training.model.preset import Preset
from training.model.presets import preset_named
from training.model.tta import average_shifts
from training.options import FitOptions, with_recipe
from training.pipeline import train_and_publish
from training.preparation import Prepared, prepare
from training.progress import Reporter
from training.tensorflow import keras

_TRIALS_SHARE = 0.5
"""Of the budget; the rest is the winner's."""
_PUBLISHING_S = 5.0
"""What starting, the report and the export take, whatever the data."""
_LONGER = 3
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Candidate:
    """A preset, with its learning rate or another. What its last trial gave is None before the first."""

    name: str
    preset: Preset
    epochs: int = 0
    seconds_per_epoch: float = 0.0
    seconds_per_answer: float = 0.0
    right: NDArray[np.bool_] | None = None
    macro_recall: float | None = None
    failure: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether a longer trial would be longer than its preset."""
        return self.epochs >= self.preset.recipe.epochs

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None else float(self.right.mean())


@dataclass
class Sweep:
    """What is known so far: it grows while `run_trials` works, so that an interrupted sweep can show it."""

    candidates: Sequence[Candidate]
    started: float = field(default_factory=time.monotonic)
    pictures: int = 0
    """All that the winner will be measured on."""

    def ranking(self) -> list[Candidate]:
        """Return the candidates that have been tried, the best first."""
        tried = [candidate for candidate in self.candidates if candidate.right is not None]
        return sorted(tried, key=lambda candidate: -(candidate.accuracy or 0.0))

    def p_value(self, candidate: Candidate) -> float | None:
        """Return McNemar's p of its difference from the best, as far as either was trained; None for the best."""
        best = self.ranking()[0]
        if candidate is best or candidate.right is None or best.right is None:
            return None
        return Paired.of(best.right, candidate.right).p_value


def parse_budget(text: str) -> float:
    """Return the seconds that "90s", "10m" or "1h" are. Raises OptionError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    if match is None or float(match[1]) == 0:
        raise OptionError(f"--budget {text} is not a time: write 90s, 10m or 1h.")
    return float(match[1]) * _UNITS[match[2]]


def parse_candidate(text: str, *, validation: float) -> Candidate:
    """Return the candidate that "quick" or "quick@0.002" means. Raises OptionError."""
    name, _, rate = text.partition("@")
    try:
        learning_rate = float(rate) if rate else None
    except ValueError:
        learning_rate = 0.0
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise OptionError(f"--try {text} is not a preset, nor one with a learning rate: write quick or quick@0.002.")
    preset = with_recipe(preset_named(name), {"learning_rate": learning_rate, "validation": validation})
    if not preset.recipe.epochs:
        raise OptionError(
            f"--try {text}: this preset has no epochs, which a sweep shares out. Run fit --preset {name}."
        )
    return Candidate(text, preset)


def run_trials(sweep: Sweep, options: FitOptions, *, budget: float, reporter: Reporter) -> None:
    """Try the candidates within half of the `budget` in seconds, one epoch of each in any case.

    `options` is what the winner will be trained with, but for its preset. Raises an ImageclassError.
    """
    check_can_publish(ModelStore(options.model_store), options.name)
    prepared = prepare(options, reporter)
    if not prepared.assignment.pictures("validation"):
        raise OptionError("A sweep needs validation pictures to choose by. Give --validation a share.")
    sweep.pictures = len(prepared.dataset.pictures)
    deadline = sweep.started + _TRIALS_SHARE * budget

    def attempt(candidate: Candidate, epochs: int) -> None:
        keras.utils.set_random_seed(options.seed)
        _try(candidate, epochs, options, prepared, reporter)

    for candidate in sweep.candidates:
        attempt(candidate, 1)
    seconds = max((candidate.seconds_per_epoch for candidate in sweep.ranking()), default=0.0)
    contenders = [candidate for candidate in sweep.ranking() if not candidate.is_complete]
    while contenders and contenders != sweep.ranking()[:1]:  # no longer trial of the best would change the ranking
        seconds *= _LONGER
        for candidate in contenders:
            affordable = int(seconds / candidate.seconds_per_epoch)
            epochs = min(candidate.preset.recipe.epochs, max(affordable, candidate.epochs + 1))
            if time.monotonic() + epochs * candidate.seconds_per_epoch > deadline:
                reporter.say(f"no time is left to train {candidate.name} for {count_of(epochs, 'epoch')}")
                return
            attempt(candidate, epochs)
        contenders = [each for each in sweep.ranking() if each in contenders and not each.is_complete]
        contenders = contenders[: (len(contenders) + 1) // 2]


def publish_best(sweep: Sweep, options: FitOptions, *, budget: float, reporter: Reporter) -> LoadedModel:
    """Train the best for as many of its epochs as the time allows, and publish it. Raises an ImageclassError."""
    ranking = sweep.ranking()
    if not ranking:
        raise TrainingError(f"Every candidate failed; the first: {sweep.candidates[0].failure}")
    best = ranking[0]
    left = sweep.started + budget - time.monotonic()
    left -= best.seconds_per_answer * sweep.pictures + _PUBLISHING_S
    affordable = max(1, int(left / max(best.seconds_per_epoch, 1e-9)))
    epochs = min(best.preset.recipe.epochs, affordable)
    reporter.say(f"training {best.name}, the best, for {epochs} of its {count_of(best.preset.recipe.epochs, 'epoch')}")
    return train_and_publish(replace(options, preset=with_recipe(best.preset, {"epochs": epochs})), reporter)


def _try(candidate: Candidate, epochs: int, options: FitOptions, prepared: Prepared, reporter: Reporter) -> None:
    spec = preprocessing_for(prepared.dataset, candidate.preset.preprocessing, size=options.size, colour=options.colour)
    train, validation = prepared.tensors("train", spec), prepared.tensors("validation", spec)
    preset = with_recipe(candidate.preset, {"epochs": epochs})
    reporter.say(f"{candidate.name}: {count_of(epochs, 'epoch')}")
    classes = len(prepared.dataset.labels)
    try:
        network = build_network(preset.layers, shape=spec.shape, classes=classes, backbone=preset.backbone)
        result = fit(network, preset.recipe, train, validation, classes=classes, seed=options.seed, reporter=reporter)
        if preset.views == "shifted":
            network = average_shifts(network)
    except TrainingError as exc:
        candidate.right, candidate.failure = None, str(exc)
        reporter.say(f"{candidate.name} failed: {exc}")
        return
    started = time.monotonic()
    found = predict_all(lambda batch: np.asarray(network(batch, training=False)), validation.images)
    candidate.seconds_per_answer = (time.monotonic() - started) / len(found)
    candidate.epochs, candidate.seconds_per_epoch = epochs, result.seconds / epochs
    candidate.right = found.argmax(axis=1) == validation.targets
    scores = score(found, validation.targets, prepared.dataset.labels, loss=preset.recipe.loss)
    candidate.macro_recall = scores.macro_recall
