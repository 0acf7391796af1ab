"""Try several candidates within a time budget, and publish the best.

If no candidates are named, the preset that `fit` would choose is trained first, as `fit` trains it. It is published
unless another candidate has more of the same validation pictures right.

Candidates with a backbone are trained to the end, one after another, from maps that they share. Candidates without a
backbone are tried by successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943). They get equal time, not equal
epochs, because one epoch of a preset may be worth ten of another. Every candidate is trained for one epoch; then for as
many epochs as fit into three times the time of the slowest; then the better half for three times as long, and so on.
The best is trained in the time that is left. A candidate that has had all of its epochs waits for the others. Only the
published model is measured on the test pictures.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import numpy as np

from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from app.engines.loading import LoadedModel
from app.system.wording import count_of
from training.bundling.export import check_can_publish
from training.data.dataset import SPLITS, Split
from training.data.tensors import Tensors
from training.errors import DivergedError, OptionError, TrainingError
from training.evaluation.compare.paired import Paired
from training.evaluation.score import predict_all, score
from training.fitting.checkpoint import Checkpoint
from training.fitting.distribution import Distribution
from training.fitting.resumable_training import Trained
from training.fitting.run_folder import RunFolder, new_run_folder
from training.model.backbone import find_weights
from training.model.tta import average_shifts
from training.options import FitOptions
from training.pipeline import identity_of, publish_trained, spec_of, train_on
from training.preparation import Prepared, load_splits, prepare
from training.progress import Reporter
from training.report.robustness import answers_needed
from training.sweep.candidates import Candidate, candidate_of, neighbours, shortened

_TRIALS_SHARE = 0.5
"""Share of the time for partial trials; the rest is for training the winner."""
_PUBLISHING_S = 5.0
"""Seconds for start, report and export, for any data."""
_OF_TENSORFLOW = 0.25
"""The time of the fastest engine, as a share of TensorFlow's, for a network with a backbone."""
_LONGER = 3
_TIMED = 32
"""Pictures on which the time per answer is measured, if the trial did not need the whole network's answers."""
_SLACK = 0.05
"""Share of the budget by which a training may overrun before it is stopped."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


class OutOfTime(TrainingError):
    """A training would not end within the budget."""


@dataclass(frozen=True)
class Kept:
    """A candidate that was trained to the end, the result, and the folder from which `fit` can resume it."""

    candidate: Candidate
    accuracy: float
    options: FitOptions
    trained: Trained
    run: RunFolder


@dataclass
class Sweep:
    """The state of a sweep; it grows while `run_trials` works, so that an interrupted sweep can show it.

    As a context manager, it closes the run folder of the best candidate so far, which stays if the sweep is stopped.
    `choice`, the first of the candidates, is what `fit` would have chosen; None if the user named all of them.
    """

    candidates: list[Candidate]
    started: float = field(default_factory=time.monotonic)
    choice: Candidate | None = None
    pictures: int = 0
    """The number of pictures that the winner will be measured on."""
    best: Kept | None = None
    _resumable: ExitStack = field(default_factory=ExitStack)
    _loaded: tuple[PreprocessingSpec, Sequence[Split], Mapping[Split, Tensors]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resumable.__exit__(kind, exc, traceback)

    def ranking(self) -> list[Candidate]:
        """Return the candidates that have been tried, the best first."""
        tried = [candidate for candidate in self.candidates if candidate.right is not None]
        return sorted(tried, key=lambda candidate: -(candidate.accuracy or 0.0))

    def challengers(self) -> list[Candidate]:
        """Return the tried candidates except for the choice, the best first."""
        return [candidate for candidate in self.ranking() if candidate is not self.choice]

    def p_value(self, candidate: Candidate) -> float | None:
        """Return McNemar's p of its difference from the best, by the latest trial of each; None for the best."""
        best = self.ranking()[0]
        if candidate is best or candidate.right is None or best.right is None:
            return None
        return Paired.of(best.right, candidate.right).p_value

    def verdict(self) -> str:
        """Say which finished candidate is best, and that it is no worse than the choice."""
        if self.best is None:
            return "nothing was trained to the end"
        best, choice = self.best.candidate, self.choice
        line = f"best: {best.name}, validation accuracy {self.best.accuracy:.2%}"
        if choice is None or best.right is None or choice.right is None:
            return line
        if best is choice:
            others = count_of(len(self.challengers()), "other")
            why = f"none of {others} was right more often" if self.challengers() else "there was no time for others"
            return f"{line}, what fit chooses by itself: {why}"
        p_value = Paired.of(choice.right, best.right).p_value
        return f"{line}; what fit chooses by itself, {choice.name}, has {choice.accuracy:.2%} (p = {p_value:.2g})"

    def keep(self, found: Kept, resumable: ExitStack) -> None:
        """Make `found` the best so far, and remove the run folder of the one before it."""
        self._resumable.close()
        self.best, self._resumable = found, resumable

    def look_further(self) -> None:
        """If all candidates were tried, add those that differ in one option from the best that has such neighbours."""
        if not all(each.seconds for each in self.candidates):
            return
        known = [each.preset for each in self.candidates]
        for candidate in self.ranking():
            if new := [preset for preset in neighbours(candidate.preset) if preset not in known]:
                self.candidates += map(candidate_of, new)
                return

    def publishing_seconds(self) -> float:
        """Return how long measuring, the report and the export take."""
        seconds = max((each.seconds_per_answer for each in self.candidates), default=0.0)
        answers = self.pictures + (0 if self._loaded is None else answers_needed(self.pictures, self._loaded[0]))
        return _PUBLISHING_S + seconds * answers

    def splits(
        self, options: FitOptions, prepared: Prepared, reporter: Reporter, *, with_test: bool = False
    ) -> Mapping[Split, Tensors]:
        """Load the pictures as the preset of `options` takes them, or return those loaded last if they fit."""
        spec = spec_of(prepared, options)
        is_first = self._loaded is None  # bad pictures of all splits are named before anything is trained
        wanted: Sequence[Split] = SPLITS if is_first or with_test else ("train", "validation")
        if self._loaded is None or self._loaded[0] != spec or not set(wanted) <= set(self._loaded[1]):
            self._loaded = None  # before the next is loaded
            self._loaded = spec, wanted, load_splits(prepared, spec, reporter, wanted=wanted)
        return self._loaded[2]


def parse_budget(text: str) -> float:
    """Return the seconds of a budget such as "90s", "10m" or "1h". Raises OptionError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    if match is None or float(match[1]) == 0:
        raise OptionError(f"--budget {text} is not a time. Write 90s, 10m or 1h.")
    return float(match[1]) * _UNITS[match[2]]


def run_trials(sweep: Sweep, options: FitOptions, *, budget: float, reporter: Reporter) -> Prepared:
    """Train the choice, try the others within the `budget` in seconds, and return the data that all of them had.

    If the user named all candidates, each gets its shortest trial even if the budget is exceeded. `options` are those
    of the winner, except for its preset. Raises an ImageclassError.
    """
    check_can_publish(ModelStore(options.model_store), options.name)
    for candidate in sweep.candidates:
        if candidate.preset.backbone is not None:
            find_weights(candidate.preset.backbone)
    prepared = prepare(options, reporter)
    if not prepared.assignment.pictures("validation"):
        raise OptionError("A sweep needs validation pictures to choose by. Give --validation a share.")
    sweep.pictures = len(prepared.dataset.pictures)

    def attempt(candidate: Candidate, epochs: int) -> None:
        _try(candidate, epochs, sweep, options, prepared, budget, reporter)

    begun = sweep.started
    if sweep.choice is not None:
        attempt(sweep.choice, sweep.choice.preset.recipe.epochs)
        begun = time.monotonic()
    are_whole = all(candidate.first_trial == candidate.preset.recipe.epochs for candidate in sweep.candidates)

    def left() -> float:
        time_for_all = sweep.started + budget - sweep.publishing_seconds() - begun
        return begun + (1.0 if are_whole else _TRIALS_SHARE) * time_for_all - time.monotonic()

    place = 0
    while place < len(sweep.candidates):
        candidate = sweep.candidates[place]
        place += 1
        if candidate is not sweep.choice and _fit_into(left(), candidate, sweep):
            attempt(candidate, candidate.first_trial)
        if are_whole and sweep.choice is not None and place == len(sweep.candidates):
            sweep.look_further()
    if are_whole:
        return prepared
    seconds = max((candidate.seconds_per_epoch for candidate in sweep.ranking()), default=0.0)
    contenders = [candidate for candidate in sweep.ranking() if not candidate.is_complete]
    while contenders and contenders != sweep.challengers()[:1]:  # no longer trial of the best would change the ranking
        seconds *= _LONGER
        for candidate in contenders:
            affordable = int(seconds / candidate.seconds_per_epoch)
            epochs = min(candidate.preset.recipe.epochs, max(affordable, candidate.epochs + 1))
            if epochs * candidate.seconds_per_epoch > left():
                reporter.say(f"no time is left to train {candidate.name} for {count_of(epochs, 'epoch')}")
                return prepared
            attempt(candidate, epochs)
        contenders = [each for each in sweep.ranking() if each in contenders and not each.is_complete]
        contenders = contenders[: (len(contenders) + 1) // 2]
    return prepared


def publish_best(
    sweep: Sweep, prepared: Prepared, options: FitOptions, *, budget: float, reporter: Reporter
) -> LoadedModel:
    """Train the best unfinished candidate for as many epochs as the time allows, and publish the best of all.

    Raises an ImageclassError.
    """
    ranking = sweep.ranking()
    if not ranking:
        raise TrainingError(f"Every candidate failed; the first: {sweep.candidates[0].failure}")
    challenger = next((each for each in ranking if not each.is_complete), None)
    if challenger is not None and (sweep.choice is not None or challenger is ranking[0]):
        left = sweep.started + budget - time.monotonic() - sweep.publishing_seconds()
        affordable = int(left / max(challenger.seconds_per_epoch, 1e-9))
        if sweep.choice is None or affordable > challenger.epochs:
            whole = challenger.preset.recipe.epochs
            challenger.preset = shortened(challenger.preset, max(1, affordable))
            epochs = challenger.preset.recipe.epochs
            reporter.say(f"training {challenger.name}, the best in its trial, for {epochs} of its {whole} epochs")
            _try(challenger, epochs, sweep, options, prepared, budget, reporter)
    if sweep.best is None:
        raise TrainingError(f"Nothing could be trained to the end: {ranking[0].failure}")
    found = sweep.best
    splits = sweep.splits(found.options, prepared, reporter, with_test=True)
    return publish_trained(found.trained, found.options, prepared, splits, run=found.run.id, reporter=reporter)


def _fit_into(left: float, candidate: Candidate, sweep: Sweep) -> bool:
    """Say whether the candidate can have its first trial in the time `left`, with fewer epochs if necessary.

    If the user named all candidates, the first one, and one epoch of each without a backbone, are tried in any case.
    """
    tried = [each for each in sweep.candidates if each.seconds]
    if sweep.best is None and (sweep.choice is None or not tried):
        return True
    backbone = candidate.preset.backbone
    if backbone is None:
        return sweep.choice is None or max((each.seconds_per_epoch for each in tried), default=0.0) <= left
    alike = [
        each for each in tried if each.preset.backbone and each.preset.backbone.application == backbone.application
    ]
    with_same_maps = [each for each in alike if each.preset.backbone == backbone]
    # the first one had to compute the maps
    before = min((each.before_epochs for each in with_same_maps[1:]), default=0.0)
    if not with_same_maps:
        before = max((each.before_epochs for each in alike), default=0.0)
    an_epoch = max((each.seconds_per_epoch for each in alike), default=0.0)
    an_epoch = an_epoch or max((each.before_epochs for each in alike), default=0.0)
    if not candidate.first_trial or not an_epoch:
        return before <= left
    preset = shortened(candidate.preset, max(0, int((left - before) / an_epoch)))
    if not preset.recipe.epochs or preset in [each.preset for each in tried]:
        return False
    candidate.preset = preset
    if sweep.choice is not None:
        candidate.name = candidate_of(preset).name
    return True


def _try(
    candidate: Candidate,
    epochs: int,
    sweep: Sweep,
    options: FitOptions,
    prepared: Prepared,
    budget: float,
    reporter: Reporter,
) -> None:
    """Train a candidate and measure it; keep it if it was trained to the end and is the best so far.

    The first candidate that is trained to the end can be resumed from each epoch, a later one once it is the best.
    """
    own = replace(options, preset=shortened(candidate.preset, epochs))
    is_whole = epochs >= candidate.preset.recipe.epochs
    latest = math.inf
    if sweep.best is not None:
        latest = sweep.started + (1 + _SLACK) * budget - sweep.publishing_seconds()
    checkpoints: list[Checkpoint] = []
    started = time.monotonic()
    reporter.say(f"{candidate.name}: {count_of(epochs, 'epoch')}")
    splits = sweep.splits(own, prepared, reporter)
    with ExitStack() as resumable:
        run = _new_run(own, splits, resumable, reporter) if is_whole and sweep.best is None else None

        def keep(checkpoint: Checkpoint) -> None:
            checkpoints[:] = [checkpoint]
            if run is not None:
                run.keep(checkpoint)
            _check_time(checkpoint, epochs, latest)

        try:
            trained = train_on(prepared, own, splits, keep=keep, distribution=Distribution(None), reporter=reporter)
        except OutOfTime as exc:
            candidate.state, candidate.seconds = "out of time", time.monotonic() - started
            reporter.say(f"{candidate.name} is stopped: {exc}")
            return
        except (DivergedError, OptionError) as exc:
            candidate.right, candidate.failure, candidate.state = None, str(exc), "failed"
            candidate.seconds = time.monotonic() - started
            reporter.say(f"{candidate.name} failed: {exc}")
            return
        _measure(candidate, trained, splits["validation"], prepared.dataset.labels)
        candidate.epochs, candidate.seconds = epochs, time.monotonic() - started
        candidate.seconds_per_epoch = trained.result.seconds / max(1, len(trained.result.epochs))
        accuracy = candidate.accuracy or 0.0
        if is_whole and (sweep.best is None or accuracy > sweep.best.accuracy):
            if run is None:
                run = _new_run(own, splits, resumable, reporter)
                for checkpoint in checkpoints:
                    run.keep(checkpoint)
            sweep.keep(Kept(candidate, accuracy, own, trained, run), resumable.pop_all())


def _check_time(checkpoint: Checkpoint, epochs: int, latest: float) -> None:
    """Raise OutOfTime if the epochs that are left would end after `latest`."""
    done = len(checkpoint.epochs)
    if time.monotonic() + (epochs - done) * checkpoint.seconds / done > latest:
        raise OutOfTime(f"no time is left for {epochs - done} of its epochs")


def _new_run(
    options: FitOptions, splits: Mapping[Split, Tensors], resumable: ExitStack, reporter: Reporter
) -> RunFolder:
    store, identity = ModelStore(options.model_store), identity_of(options, splits)
    run = new_run_folder(store, options.name, identity, is_chief=True, say=reporter.say)
    run.again = f"{options.command(here=True)} --resume"
    return resumable.enter_context(run)


def _measure(candidate: Candidate, trained: Trained, pictures: Tensors, labels: Sequence[str]) -> None:
    """Measure a candidate's accuracy on the validation pictures, and its inference time."""
    network, validation = trained.network, trained.validation
    if validation is None:
        raise OptionError("A sweep needs validation pictures to choose by. Give --validation a share.")
    part = trained.part
    if candidate.preset.views == "shifted":
        network = part = average_shifts(network)
    found = predict_all(lambda batch: np.asarray(part(batch, training=False)), validation.images)
    candidate.right = found.argmax(axis=1) == validation.targets
    scores = score(found, validation.targets, labels, loss=candidate.preset.recipe.loss)
    candidate.macro_recall = scores.macro_recall
    timed = pictures.images[:_TIMED]
    started = time.monotonic()
    network(timed, training=False)
    share = 1.0 if candidate.preset.backbone is None else _OF_TENSORFLOW
    candidate.seconds_per_answer = share * (time.monotonic() - started) / len(timed)
