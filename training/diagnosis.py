"""Diagnose a finished run: each problem with its evidence and the next command to try.

Pure functions from the run's figures to problems. docs/reference/report.md gives the origin of each threshold.
Held-out pictures are those of validation if there are any, so a choice made on this advice does not use the test set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.system.invocation import command_line
from app.system.wording import count_of
from training.choice import Family, family_of, preset_for
from training.data.dataset import Split
from training.data.preprocessing import PictureKind
from training.evaluation.bundle_score import Scored
from training.evaluation.interval import wilson
from training.model.preset import OptimizerName, Preset, Recipe
from training.model.presets import preset_named
from training.model.presets.photos import PHOTOS, PHOTOS_QUICK
from training.options import FitOptions, with_recipe

USUAL_RATES: Mapping[OptimizerName, float] = {
    "sgd": 0.05,
    "momentum": 0.02,
    "rmsprop": 0.001,
    "adam": 0.001,
    "adamw": 0.001,
}
"""Usual learning rates of the optimizers; for the last three, Keras's own defaults."""

# The rate is too low if the last fall of the training loss is at least this share of the largest one, and this share of
# the first loss is left, after at least this many steps.
_STEADY, _BARELY, _STEPS_TO_JUDGE = 0.5, 0.6, 100
# A rate is too low as well if it is this many times below the usual one, and this share of the first loss is left.
_FAR, _STANDING = 20, 0.9
# The rate is too high if the accuracy is at most this far from guessing (1 is perfect), or if the loss jumps between
# two epochs by this share of the loss of guessing.
_CHANCE, _JUMP = 0.1, 0.25
_POOR = 0.9  # upper end of the held-out accuracy's interval, of a network trained from scratch
_WORTH_MORE = 0.02  # another preset must avoid at least this share of mistakes
_MEASURED = {
    "compact": "of 1,800 digits of MNIST it had 99.2 % of the test pictures right, photos_quick 95.0 %",
    "photos_from_scratch": "of 2,062 hands of 100x100 pixels it had 99.5 % right, photos_quick 93.7 %",
}
_OF_THE_DATA = ("validation", "class_weights")  # parts of a recipe that suit any network
_LEAST_LEARNED = 0.9  # accuracy on the training pictures
_UNSETTLED = 0.1  # accuracy that is lost between training and what is served
_STILL_FALLING = 0.25  # of the largest fall in an epoch
_GAP = 0.02  # accuracy on training pictures minus the upper end of the held-out accuracy's interval
_LOSS_RISE = 1.33  # validation loss over that of its best epoch
# Overfitting: held-out mistakes (by the interval's lower end) and held-out loss, as multiples of those on training
# pictures; and the number of mistakes that are needed to judge.
_MORE_MISTAKES, _MORE_LOSS, _MISTAKES_TO_JUDGE = 3, 5, 20
# Label noise: the least share of wrong answers in the more confident half, the same relative to all answers, and the
# least distance from guessing (1 is perfect).
_NOISE, _SURE, _LEARNED = 0.02, 0.5, 0.3
_ABLE = 0.65  # accuracy on the training pictures of a model that can judge labels
_FEW = 10  # training pictures, as in the audit
_UNEQUAL = 3  # size of the largest class over that of another, from which class weights help
_TELLS_APART = 0.05  # a set is too small if half of its accuracy's interval is above this
_WAIT = 0.25  # share of an epoch


@dataclass(frozen=True)
class Answers:
    """The confidence of the answers (N,) to pictures that the model has not learned, and whether they are `right`."""

    confidence: NDArray[np.float32]
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, scored: Mapping[Split, Scored]) -> Self | None:
        """Gather the answers to the held-out splits; None if there are none."""
        held_out = [found for split, found in scored.items() if split != "train"]
        if not held_out:
            return None
        return cls(
            confidence=np.concatenate([found.probabilities.max(axis=1) for found in held_out]),
            right=np.concatenate([found.right for found in held_out]),
        )


@dataclass(frozen=True)
class Facts:
    """What is known of a finished run.

    `epochs`, `head_accuracy` and `scores` are metrics.json's, `audit` is the manifest's record of the inspection before
    the training. There are no epochs if the head alone was fitted, to a backbone's features.
    """

    options: FitOptions
    counts: Mapping[Split, Mapping[str, int]]
    pictures: PictureKind
    epochs: Sequence[Mapping[str, Any]]
    head_accuracy: float | None
    scores: Mapping[Split, Mapping[str, Any] | None]
    audit: Mapping[str, Any]
    answers: Answers | None

    @property
    def held_out(self) -> tuple[str, Mapping[str, Any]] | None:
        """The scores that choices may be made on, with the name of their split."""
        return next(((name, found) for name in ("validation", "test") if (found := self.scores[name])), None)

    @property
    def all_pictures(self) -> int:
        return sum(count for of_split in self.counts.values() for count in of_split.values())

    @property
    def family(self) -> Family:
        """The family of the pictures, by which presets are chosen."""
        return family_of(self.pictures, self.all_pictures)

    @property
    def is_taught(self) -> bool:
        """Whether the network began with a backbone that was trained on other pictures."""
        backbone = self.options.preset.backbone
        return backbone is not None and backbone.is_taught

    @property
    def usual_rate(self) -> float:
        """The learning rate at which a search begins; for a pretrained backbone, the preset's own, which is much
        lower."""
        recipe, own = self.options.preset.recipe, preset_named(self.options.preset.name).recipe
        return (
            own.learning_rate if self.is_taught and own.optimizer == recipe.optimizer else USUAL_RATES[recipe.optimizer]
        )

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        return np.array([epoch["loss"] for epoch in self.epochs])

    @property
    def chance_loss(self) -> float:
        """The training loss of always answering with the shares of the classes."""
        counts = np.array([count for count in self.counts["train"].values() if count], np.float64)
        shares = counts / counts.sum()
        if self.options.preset.recipe.loss == "mse":
            return float((shares * (1 - shares)).mean())
        return float(-(shares * np.log(shares)).sum())

    @property
    def steps(self) -> int:
        """The number of updates of the weights."""
        pictures, batch_size = sum(self.counts["train"].values()), self.options.preset.recipe.batch_size
        return len(self.epochs) * (1 if batch_size == "full" else -(-pictures // batch_size))


@dataclass(frozen=True)
class AuditOf:
    """An audit of the data as the next command to run; `fix` is the folder of the corrected data."""

    options: FitOptions
    fix: str | None = None

    def command(self, *, here: bool = False) -> str:
        data = self.options.data if here else Path(self.options.data).name
        words = ["training", "audit", "--data", data, *(["--fix", self.fix] if self.fix else [])]
        return command_line(*words, here=here)


@dataclass(frozen=True)
class NextRun:
    """A training as the next command to run, instead of the one that was diagnosed."""

    options: FitOptions
    after: FitOptions

    def command(self, *, here: bool = False) -> str:
        return self.options.command(here=here, after=self.after)


@dataclass(frozen=True)
class Problem:
    """A problem of a run: its name, its evidence, advice, and the next command to run."""

    name: str
    evidence: str
    advice: str
    next: NextRun | AuditOf

    def as_text(self) -> str:
        """Return the problem as lines for a terminal, with a command that can be pasted."""
        return f"{self.name}: {self.evidence}\n  {self.advice} {self.next.command(here=True)}"

    def as_dict(self) -> dict[str, str]:
        """Return it in JSON's types; the command is without the folders of this machine."""
        return {
            "name": self.name,
            "evidence": self.evidence,
            "advice": self.advice,
            "command": self.next.command(),
        }


def diagnose(facts: Facts) -> list[Problem]:
    """Return the run's problems, those that distort its figures first; empty for a healthy run.

    If the learning rate is wrong, the model's mistakes are no evidence for any other problem. If another preset does
    better, the accuracy of this one is no evidence either.
    """
    rate = _rate_too_low(facts) or _rate_too_high(facts)
    harm = None if rate else _harmful_fine_tuning(facts)
    noise = None if rate or harm else _label_noise(facts)
    better = harm or (None if rate or noise else _better_preset(facts))
    onward = replace(facts, options=better.next.options) if better and isinstance(better.next, NextRun) else facts
    found = [
        _leakage(facts),
        rate,
        noise,
        better,
        None if rate or noise or better else _underfitting(facts),
        None if rate or better else _overfitting(facts),
        _little_data(onward),
        None if better else _small_validation(facts),
        _starving(onward),
    ]
    return [problem for problem in found if problem]


def _leakage(facts: Facts) -> Problem | None:
    shared = {name: facts.audit.get(name, 0) for name in ("leakage", "near-leakage")}
    if not any(shared.values()):
        return None
    counted = " and ".join(f"{count:,} × {name}" for name, count in shared.items() if count)
    return Problem(
        "leakage",
        f"The data's own splits have pictures or groups in common: {counted}. The held-out figures are too high.",
        "Remove the copies, and measure again.",
        AuditOf(facts.options, fix="cleaned"),
    )


def _rate_too_low(facts: Facts) -> Problem | None:
    recipe, losses, usual = facts.options.preset.recipe, facts.losses, facts.usual_rate
    if not len(losses):
        return None
    drops = -np.diff(losses)
    steady = len(losses) > 2 and drops[-1] > 0 and drops[-1] >= _STEADY * drops.max()
    crawls = steady and losses[-1] >= _BARELY * losses[0] and facts.steps >= _STEPS_TO_JUDGE
    standing = recipe.learning_rate <= usual / _FAR and losses[-1] >= _STANDING * losses[0]
    if not (crawls and recipe.learning_rate < usual and not facts.is_taught) and not standing:
        return None
    return Problem(
        "learning rate too low",
        f"After {count_of(len(losses), 'epoch')} of {count_of(facts.steps // len(losses), 'step')} the training loss "
        f"has only fallen from {losses[0]:.4g} to {losses[-1]:.4g}, at a learning rate of {recipe.learning_rate:g}, "
        "and has not levelled off.",
        _usually("Larger", facts),
        _again(facts, learning_rate=max(recipe.learning_rate * 10, usual)),
    )


def _rate_too_high(facts: Facts) -> Problem | None:
    """Find a learning rate that is too high.

    A single epoch, or a few steps that have not raised the loss, prove nothing.
    """
    recipe, losses, chance = facts.options.preset.recipe, facts.losses, facts.chance_loss
    if len(losses) < 2:
        return None
    rises = np.diff(losses)
    stuck = _beyond_chance(facts, "train") < _CHANCE and losses[-1] >= chance
    judged = facts.steps >= _STEPS_TO_JUDGE or losses[-1] >= (1 + _JUMP) * chance
    if stuck and judged and recipe.learning_rate >= facts.usual_rate:
        shown = (
            f"The training loss ends at {losses[-1]:.3g}, no better than the {chance:.3g} of answering with the shares "
            f"of the classes; in the first epoch it was {losses[0]:.3g}."
        )
    elif rises.max() >= _JUMP * chance:
        epoch = int(rises.argmax()) + 2
        shown = f"The training loss jumps, from {losses[epoch - 2]:.3g} to {losses[epoch - 1]:.3g} in epoch {epoch}."
    else:
        return None
    return Problem(
        "learning rate too high",
        f"{shown} The rate was {recipe.learning_rate:g}.",
        _usually("Smaller", facts),
        _again(facts, learning_rate=min(recipe.learning_rate / 10, facts.usual_rate)),
    )


def _usually(steps: str, facts: Facts) -> str:
    preset = facts.options.preset
    return (
        f"{steps} steps: {preset if facts.is_taught else preset.recipe.optimizer} usually works with "
        f"{facts.usual_rate:g}."
    )


def _harmful_fine_tuning(facts: Facts) -> Problem | None:
    """Compare with the softmax regression that the fine-tuning began with, on the same validation pictures."""
    preset, before, found = facts.options.preset, facts.head_accuracy, facts.scores["validation"]
    if before is None or found is None or not len(facts.losses):
        return None
    if wilson(round(found["accuracy"] * found["pictures"]), found["pictures"])[1] >= before:
        return None
    evidence = (
        f"The softmax regression before the fine-tuning was right on {before:.1%} of "
        f"{count_of(found['pictures'], 'validation picture')}; after {count_of(len(facts.losses), 'epoch')} it is on "
        f"{found['accuracy']:.1%}."
    )
    if preset.recipe.learning_rate > facts.usual_rate:
        return Problem(
            "learning rate too high",
            f"{evidence} The rate was {preset.recipe.learning_rate:g}.",
            _usually("Smaller", facts),
            _again(facts, learning_rate=facts.usual_rate),
        )
    return Problem(
        "fine-tuning does harm",
        evidence,
        f"Keep only the regression, with an expected {before:.1%}, or collect more pictures: there are "
        f"{sum(_sizes(facts)):,} to learn from.",
        _with_preset(facts, PHOTOS_QUICK) if _is_like(preset, PHOTOS_QUICK) else _again(facts, epochs=0),
    )


def _better_preset(facts: Facts) -> Problem | None:
    """Recommend the preset that `fit` chooses for such pictures, with its measured gain, if there is one."""
    if facts.held_out is None:
        return None
    (name, found), preset = facts.held_out, facts.options.preset
    pictures, accuracy = found["pictures"], found["accuracy"]
    least_wrong = wilson(pictures - round(accuracy * pictures), pictures)[0]
    evidence = f"{accuracy:.1%} of {count_of(pictures, f'{name} picture')} are right"
    better = preset_for(facts.family, facts.all_pictures)
    if not facts.is_taught:
        if facts.family != "photos" or 1 - least_wrong >= _POOR:
            return None
        evidence += ", by a network that was trained on these photos only."
    elif not _is_like(preset, PHOTOS) or least_wrong < _WORTH_MORE:
        return None
    elif facts.family != "photos":
        evidence += f"; {preset} is for photos, and these are {facts.family}."
    elif preset.recipe.epochs < better.recipe.epochs:
        evidence += f", after {count_of(preset.recipe.epochs, 'epoch')} of fine-tuning."
    else:
        return None
    return Problem("a better preset", evidence, _gain(preset, better), _with_preset(facts, better))


def _gain(preset: Preset, better: Preset) -> str:
    """Describe the better preset, and its measured gain."""
    if not _is_like(better, PHOTOS):
        return f"Take the preset for such pictures, {better}: {_MEASURED[better.name]}."
    are_few = better.recipe.epochs > PHOTOS.recipe.epochs
    if _is_like(preset, PHOTOS):
        gained = "300 photos of clothes that raised the test accuracy from 83 % to 86 %"
        if not are_few:
            gained = "3,068 photos of clothes that raised the test accuracy from 89.8 % to 93.3 %, for 2.5 times "
            gained += "the CPU"
        return f"Let the last third of the network learn for {better.recipe.epochs} epochs: on {gained}."
    gained = "300 photos of clothes its features alone raised the test accuracy from 35 % to 83 %"
    if not are_few:
        gained = "3,068 photos of clothes that raised the test accuracy from 57 % to 93 %"
    return f"Begin with a network that was trained on ImageNet: on {gained}."


def _label_noise(facts: Facts) -> Problem | None:
    """Find label noise.

    Wrong labels do not depend on the model's confidence; the model's own mistakes are among its unsure answers.
    A model that has not learned its training pictures, or that was trained on photos from scratch, cannot tell one from
    the other.
    """
    answers, train = facts.answers, facts.scores["train"]
    if answers is None or train is None or train["accuracy"] < _ABLE or np.median(_sizes(facts)) < _FEW:
        return None
    if (
        (facts.family == "photos" and not facts.is_taught)
        or _still_falling(facts)
        or _lost_in_serving(facts) >= _UNSETTLED
    ):
        return None
    confident = np.argsort(-answers.confidence, kind="stable")[: len(answers.right) // 2]
    wrong, of_all = int((~answers.right[confident]).sum()), float((~answers.right).mean())
    if not len(confident) or wilson(wrong, len(confident))[0] < _NOISE or wrong / len(confident) < _SURE * of_all:
        return None
    if _beyond(1 - of_all, len(facts.counts["train"])) < _LEARNED:
        return None
    return Problem(
        "label noise",
        "Of the half of the held-out pictures about which the model is most confident, it gets "
        f"{wrong / len(confident):.1%} wrong, and of all {of_all:.1%}: confidence does not help, which is typical of "
        "wrong labels.",
        "Look at the labels that the report suspects, correct them, and train again.",
        AuditOf(facts.options),
    )


def _underfitting(facts: Facts) -> Problem | None:
    train = facts.scores["train"]
    if train is None or train["accuracy"] >= _LEAST_LEARNED or facts.is_taught:
        return None
    recipe = facts.options.preset.recipe
    evidence = f"It gets {train['accuracy']:.1%} of its own training pictures right"
    if _lost_in_serving(facts) >= _UNSETTLED and recipe.batch_size != "full":
        return Problem(
            "underfitting",
            f"{evidence}, yet {facts.epochs[-1]['accuracy']:.1%} in the last epoch: {count_of(facts.steps, 'step')}, "
            "too few for the moving averages of batch normalisation, which the served model uses.",
            "Take more and smaller steps.",
            _again(facts, epochs=recipe.epochs * 2, batch_size=max(8, recipe.batch_size // 2)),
        )
    if _still_falling(facts) or recipe.schedule != "constant":
        return Problem(
            "underfitting",
            f"{evidence}, and {count_of(len(facts.epochs), 'epoch')} ended before the loss ({facts.losses[-1]:.3g}) "
            "levelled off.",
            "Train longer.",
            _again(facts, epochs=recipe.epochs * 3),
        )
    spec = facts.options.preset.preprocessing
    height, width = facts.options.size if isinstance(facts.options.size, tuple) else (spec.height, spec.width)
    return Problem(
        "underfitting",
        f"{evidence}, and the loss has levelled off at {facts.losses[-1]:.3g}.",
        "Take a larger network, or a larger --size.",
        _instead(facts, size=(2 * height, 2 * width)),
    )


def _overfitting(facts: Facts) -> Problem | None:
    train, held_out = facts.scores["train"], facts.held_out
    if train is None or held_out is None:
        return None
    name, found = held_out
    pictures = found["pictures"]
    high = wilson(round(found["accuracy"] * pictures), pictures)[1]
    gap = train["accuracy"] - high
    validation = [epoch["validation_loss"] for epoch in facts.epochs if epoch["validation_loss"] is not None]
    best = int(np.argmin(validation)) + 1 if validation else 0
    taken_back = facts.options.preset.recipe.early_stopping > 0  # to the best epoch
    rises = bool(validation) and gap > 0 and not taken_back and validation[-1] >= _LOSS_RISE * validation[best - 1]
    learned_by_heart = (
        round((1 - found["accuracy"]) * pictures) >= _MISTAKES_TO_JUDGE
        and 1 - high >= _MORE_MISTAKES * (1 - train["accuracy"])
        and found["loss"] >= _MORE_LOSS * train["loss"]
    )
    if facts.is_taught and not rises:  # it learns some thousand pictures by heart at once, and is the better for it
        return None
    if gap < _GAP and not rises and not learned_by_heart:
        return None
    evidence = (
        f"Training pictures {train['accuracy']:.2%} right, {count_of(pictures, f'{name} picture')} "
        f"{found['accuracy']:.2%} ({high:.2%} at best, by the 95 % interval)."
    )
    if rises:
        evidence += (
            f" The validation loss was {validation[best - 1]:.3g} in epoch {best} and rose to {validation[-1]:.3g}."
        )
        return Problem("overfitting", evidence, "Stop at the best epoch, or augment.", _again(facts, early_stopping=3))
    if learned_by_heart:
        evidence += f" The loss is {train['loss']:.2g} on the former, and {found['loss']:.2g} on the latter."
    mixup = facts.options.preset.recipe.mixup or 0.1
    return Problem(
        "overfitting", evidence, "Collect more pictures, augment them, or blend them.", _again(facts, mixup=2 * mixup)
    )


def _little_data(facts: Facts) -> Problem | None:
    few = {label: count for label, count in facts.counts["train"].items() if count < _FEW}
    if not few:
        return None
    sizes = _sizes(facts)
    until_then = "; until then give all classes the same weight" if max(sizes) >= _UNEQUAL * min(sizes) else ""
    shown = ", ".join(f"{label} ({count})" for label, count in list(few.items())[:5])
    return Problem(
        "too little data for a class",
        f"Training pictures: {shown}{' …' if len(few) > 5 else ''}; so few teach the network those pictures and "
        "not the class.",
        f"Collect {_FEW} and better 100 of each class, or leave the class out{until_then}.",
        _again(facts, class_weights="balanced") if until_then else _again(facts),
    )


def _small_validation(facts: Facts) -> Problem | None:
    held_out, options = facts.held_out, facts.options
    share = options.preset.recipe.validation
    if held_out is None:
        evidence = "No pictures were held out, so nothing shows how the model does on other pictures."
        return Problem("nothing held out", evidence, "Hold some out.", _instead(facts, test=0.2))
    name, found = held_out
    low, high = wilson(round(found["accuracy"] * found["pictures"]), found["pictures"])
    if (high - low) / 2 <= _TELLS_APART:
        return None
    more = min(0.3, max(2 * share, 0.2))
    return Problem(
        f"{name} set too small",
        f"{count_of(found['pictures'], f'{name} picture')}, {found['accuracy']:.1%} right: the 95 % interval is "
        f"{low:.1%} to {high:.1%}, so two models that differ by less than {(high - low) / 2:.0%} cannot be "
        "distinguished.",
        "Hold out a larger share, or collect more pictures.",
        _again(facts, validation=more) if name == "validation" else _instead(facts, test=min(0.5, 2 * options.test)),
    )


def _starving(facts: Facts) -> Problem | None:
    waits = [wait for epoch in facts.epochs if (wait := epoch.get("input_wait")) is not None]
    waited = float(np.median(waits[1:] or waits)) if waits else 0.0
    if waited < _WAIT:
        return None
    recipe = facts.options.preset.recipe
    larger = "full" if recipe.batch_size == "full" else recipe.batch_size * 4
    return Problem(
        "input starving",
        f"The network waited for its pictures for {waited:.0%} of each epoch.",
        "Use larger batches, less augmentation, or more cores; other programs may be using them.",
        _again(facts, batch_size=larger),
    )


def _still_falling(facts: Facts) -> bool:
    """Say whether the training ended while the loss was still falling: its mistakes are then no evidence."""
    if facts.is_taught:
        return False
    drops = -np.diff(facts.losses)
    if not len(drops):
        return True
    constant = facts.options.preset.recipe.schedule == "constant"
    return constant and bool(drops[-1] > 0 and drops[-1] >= _STILL_FALLING * drops.max())


def _lost_in_serving(facts: Facts) -> float:
    """Return the accuracy on training pictures in the last epoch, minus that of the served model."""
    train = facts.scores["train"]
    return float(facts.epochs[-1]["accuracy"] - train["accuracy"]) if train and facts.epochs else 0.0


def _beyond_chance(facts: Facts, split: Split) -> float:
    found = facts.scores[split]
    return 1.0 if found is None else _beyond(found["accuracy"], len(facts.counts["train"]))


def _beyond(accuracy: float, classes: int) -> float:
    """Return the accuracy on a scale from 0, that of guessing, to 1, always right."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)


def _sizes(facts: Facts) -> list[int]:
    return list(facts.counts["train"].values())


def _is_like(preset: Preset, other: Preset) -> bool:
    """Return whether both fine-tune the same backbone."""
    one, two = preset.backbone, other.backbone
    return bool(one and two and one.is_taught and two.is_taught and one.application == two.application)


def _again(facts: Facts, **changes: Any) -> NextRun:
    return _instead(facts, preset=with_recipe(facts.options.preset, changes))


def _instead(facts: Facts, **changes: Any) -> NextRun:
    return NextRun(replace(facts.options, **changes), after=facts.options)


def _with_preset(facts: Facts, preset: Preset) -> NextRun:
    """Return the run with another preset, keeping the changed options: all but the number of epochs if both fine-tune
    the same backbone, else only those that do not concern the training of the network."""
    options = facts.options
    now, own, changed = options.preset, preset_named(options.preset.name), {}
    for field in fields(Recipe):
        kept = field.name != "epochs" if _is_like(now, preset) else field.name in _OF_THE_DATA
        if kept and getattr(now.recipe, field.name) != getattr(own.recipe, field.name):
            changed[field.name] = getattr(now.recipe, field.name)
    better = with_recipe(preset, changed)
    if _is_like(now, preset):
        return _instead(facts, preset=replace(better, backbone=now.backbone))
    return _instead(facts, preset=better, size=None, colour=None)
