"""A candidate of a sweep: a preset, with changes of its recipe or backbone, and the results of its trials."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import OptionError
from training.model.layers import Backbone
from training.model.preset import Preset, Recipe
from training.model.presets import preset_named
from training.options import FIT_OPTIONS, with_backbone, with_recipe

_BLOCK = re.compile(r"block([0-9]+)")
_FEWER_BLOCKS = 2
_LAST_BLOCK = 15


@dataclass
class Candidate:
    """A preset, possibly with changed options.

    The results of its last trial are None before the first. `seconds` is the time of the last trial, including
    everything before the first epoch.
    """

    name: str
    preset: Preset
    epochs: int = 0
    seconds: float = 0.0
    seconds_per_epoch: float = 0.0
    seconds_per_answer: float = 0.0
    right: NDArray[np.bool_] | None = None
    macro_recall: float | None = None
    failure: str | None = None
    state: str = "not tried"
    """What the table shows for a candidate without figures."""

    @property
    def first_trial(self) -> int:
        """The epochs of the shortest useful trial: 1, or all for a candidate with a backbone.

        A backbone needs few epochs, and they follow a regression that takes most of the time.
        """
        epochs = self.preset.recipe.epochs
        return epochs if self.preset.backbone is not None and self.preset.backbone.is_taught else min(1, epochs)

    @property
    def before_epochs(self) -> float:
        """The seconds of the last trial before its first epoch."""
        return max(0.0, self.seconds - self.epochs * self.seconds_per_epoch)

    @property
    def is_complete(self) -> bool:
        """Whether a longer trial would be longer than its preset."""
        return self.right is not None and self.epochs >= self.preset.recipe.epochs

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None else float(self.right.mean())


def parse_candidate(text: str, *, validation: float) -> Candidate:
    """Return the candidate that "quick" or "quick@0.002" means. Raises OptionError."""
    name, _, rate = text.partition("@")
    try:
        learning_rate = float(rate) if rate else None
    except ValueError:
        learning_rate = 0.0
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise OptionError(f"--try {text} is not a preset, nor one with a learning rate: write quick or quick@0.002.")
    return Candidate(text, with_recipe(preset_named(name), {"learning_rate": learning_rate, "validation": validation}))


def candidate_of(preset: Preset) -> Candidate:
    """Return a candidate that is named like the arguments of `fit` after --preset."""
    own = preset_named(preset.name)
    parts: dict[type, tuple[Any, Any]] = {
        Recipe: (preset.recipe, own.recipe),
        Backbone: (preset.backbone, own.backbone),
    }
    words = [preset.name]
    for declared in FIT_OPTIONS.values():
        if declared.by in parts and declared.field != "validation":
            value, usual = (getattr(part, declared.field, None) for part in parts[declared.by])
            if value != usual:
                words += [declared.word, f"{value:g}" if isinstance(value, float) else str(value)]
    return Candidate(" ".join(words), preset)


def neighbours(preset: Preset) -> Iterator[Preset]:
    """Yield presets that differ from this one in one option of `fit`, the most promising first."""
    recipe = preset.recipe
    changes: list[dict[str, Any]] = []
    if recipe.epochs:
        changes += [
            {"learning_rate": recipe.learning_rate * 2},
            {"mixup": 0.0 if recipe.mixup else 0.2},
            {"learning_rate": recipe.learning_rate / 2},
            {"epochs": recipe.epochs * 2},
            {"weight_averaging": 0.0 if recipe.weight_averaging else 0.99},
        ]
    changes.append({"label_smoothing": 0.0 if recipe.label_smoothing else 0.1})
    if recipe.epochs and recipe.weight_decay:
        changes.append({"weight_decay": recipe.weight_decay * 10})
    for change in changes:
        yield with_recipe(preset, change)
    block = None if preset.backbone is None else _BLOCK.fullmatch(preset.backbone.fine_tune_from)
    if recipe.epochs and block is not None:
        for number in (int(block[1]) - _FEWER_BLOCKS, int(block[1]) + _FEWER_BLOCKS):
            if 0 < number <= _LAST_BLOCK:
                yield with_backbone(preset, {"fine_tune_from": f"block{number}"})


def shortened(preset: Preset, epochs: int) -> Preset:
    """Return the preset with this many epochs, or its own if these are fewer."""
    return replace(preset, recipe=replace(preset.recipe, epochs=min(epochs, preset.recipe.epochs)))
