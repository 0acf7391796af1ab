"""What `fit` can be asked for, from the words of its command line and back."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from training.data.folds import Fold
from training.errors import OptionError
from training.evaluation.acceptance import Against, Requirement
from training.evaluation.calibration.temperature import Method
from training.fitting.distribution import StrategyName
from training.model.preset import FineTune, Preset, Recipe
from training.model.presets import PRESETS, preset_named

Size = tuple[int, int] | Literal["data"]
Colour = Literal["grey", "rgb", "data"]

_PLAIN = Recipe()
_LESS_COMMON = (
    "schedule",
    "warm_up",
    "weight_decay",
    "momentum",
    "label_smoothing",
    "mixup",
    "augment_until",
    "weight_averaging",
    "class_weights",
    "early_stopping",
    "precision",
    "steps_per_execution",
    "drop_remainder",
)
"""Parts of a recipe that a command names only where they, or the preset's, are not what a plain recipe has."""


@dataclass(frozen=True)
class FitOptions:
    """What `fit` was asked for: a preset whose recipe has the command line's changes already in it."""

    data: str
    name: str
    preset: Preset
    model_store: Path
    seed: int
    test: float
    size: Size | None
    colour: Colour | None
    on_bad_image: Literal["skip", "fail"]
    about: Path | None
    requirements: tuple[Requirement, ...] = ()
    against: Against | None = None
    max_recall_drop: float = 0.02
    keep: int | None = None
    fold: Fold | None = None
    group_by: str | None = None
    allow_leakage: bool = False
    cache: bool = True
    calibration: Method = "temperature"
    report: bool = True
    resume: bool = False
    deterministic: bool = False
    strategy: StrategyName = "none"
    logs: Path | None = None

    def command(self, *, here: bool = False) -> str:
        """Return the command that repeats the run, without the folders of the machine that it ran on unless `here`.

        What only says whether the result is published, and what is removed then, is no part of it; nor is on how many
        machines it ran, or what was logged.
        """
        preset, recipe = self.preset, self.preset.recipe
        words = ["python", "-m", "training", "fit", "--data", self.data if here else Path(self.data).name]
        words += ["--name", self.name]
        if here:
            words += ["--model-store", str(self.model_store)]
        words += ["--preset", preset.name, "--seed", str(self.seed)]
        words += ["--epochs", str(recipe.epochs), "--batch-size", str(recipe.batch_size), "--loss", recipe.loss]
        words += ["--optimizer", recipe.optimizer, "--learning-rate", str(recipe.learning_rate)]
        words += ["--validation", str(recipe.validation)]
        words += ["--test", str(self.test)] if self.fold is None else ["--fold", str(self.fold)]
        for field in _LESS_COMMON:
            value = getattr(recipe, field)
            if {value, getattr(preset_named(preset.name).recipe, field)} != {getattr(_PLAIN, field)}:
                words += _option(field.replace("_", "-"), value)
        if preset.backbone is not None:
            words += ["--weights", Path(preset.backbone.weights).name]
        if recipe.fine_tune is not None:
            words += ["--fine-tune-epochs", str(recipe.fine_tune.epochs)]
            words += ["--fine-tune-rate", str(recipe.fine_tune.learning_rate)]
        if self.about is not None:
            words += ["--about", str(self.about) if here else self.about.name]
        if self.size is not None:
            words += ["--size", "data" if self.size == "data" else f"{self.size[0]}x{self.size[1]}"]
        if self.colour is not None:
            words += ["--colour", self.colour]
        if self.group_by is not None:
            words += ["--group-by", self.group_by]
        if self.allow_leakage:
            words += ["--allow-leakage"]
        if self.calibration != "temperature":
            words += ["--calibration", self.calibration]
        if self.deterministic:
            words += ["--deterministic"]
        return shlex.join(words)


def _option(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{name}"]
    return [f"--{name}", str(value)]


def parse_size(text: str) -> Size:
    """Return "data", or (height, width) from "64" or "48x64" (height first). Raises OptionError."""
    if text == "data":
        return "data"
    parts = text.lower().split("x")
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts) or len(parts) > 2:
        raise OptionError(f"--size {text} is not a size: give 64, or HEIGHTxWIDTH as in 48x64, or data. At most 4096.")
    return int(parts[0]), int(parts[-1])


def parse_batch_size(text: str) -> int | Literal["full"]:
    """Return "full" or a positive number. Raises OptionError."""
    if text == "full":
        return "full"
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--batch-size {text} is neither a number of pictures nor full.")
    return int(text)


def with_recipe(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return the preset with those parts of its recipe replaced that are not None."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(preset, recipe=replace(preset.recipe, **given))


def with_transfer(
    preset: Preset, *, weights: str | None, fine_tune_epochs: int | None, fine_tune_rate: float | None
) -> Preset:
    """Return the preset with what is not None: its backbone's first weights ("imagenet", "none" or a file), and how
    they are fine-tuned.

    Without weights there is nothing to keep, so all is trained from the first epoch on. Raises OptionError.
    """
    if weights is None and fine_tune_epochs is None and fine_tune_rate is None:
        return preset
    if preset.backbone is None or preset.recipe.fine_tune is None:
        raise OptionError(
            f"Preset {preset.name} starts from nothing: --weights, --fine-tune-epochs and --fine-tune-rate are for "
            f"those with a backbone, {', '.join(name for name, other in PRESETS.items() if other.backbone)}."
        )
    if weights not in (None, "imagenet", "none") and not Path(weights).is_file():
        raise OptionError(f"--weights {weights} is neither imagenet, none nor a file.")
    backbone = preset.backbone if weights is None else replace(preset.backbone, weights=weights)
    recipe = preset.recipe
    if backbone.weights == "none":
        if fine_tune_epochs is not None or fine_tune_rate is not None:
            raise OptionError("With --weights none there is nothing to fine-tune; give --epochs and --learning-rate.")
        return replace(preset, backbone=backbone, recipe=replace(recipe, epochs=recipe.total_epochs, fine_tune=None))
    fine_tune = FineTune(
        preset.recipe.fine_tune.epochs if fine_tune_epochs is None else fine_tune_epochs,
        fine_tune_rate or preset.recipe.fine_tune.learning_rate,
    )
    return replace(preset, backbone=backbone, recipe=replace(recipe, fine_tune=fine_tune))
