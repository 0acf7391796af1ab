"""Choose a preset for data if none was named, from some of its pictures, and say which and why."""

from dataclasses import dataclass
from typing import Literal

from app.system.cores import available_cores
from app.system.wording import count_of
from training.data.dataset import Dataset
from training.data.preprocessing import Colour, PictureKind, Size, kind_of
from training.model.installed_weights import installed_weights
from training.model.preset import Preset
from training.model.presets import preset_named
from training.options import Effort, with_recipe

_LARGEST_DRAWING = 40
"""Pixels of the longer side: grey pictures up to this size are characters or drawings, and not photos."""
_SMALLEST_PHOTO = 96
"""Pixels of the shorter side that a network with ImageNet's weights needs."""

_LARGEST_SMALL_PHOTO, _MANY_SMALL_PHOTOS = 128, 1000
"""Longer side in pixels, and number of pictures.

From this many small photos, a small network trained from scratch is more accurate than a pretrained one (hands of
100x100 pixels: 99.5 against 93.7 %).
"""

Family = Literal["small grey pictures", "many small photos", "photos"]

_PRESETS: dict[Family, dict[Effort, str]] = {
    "small grey pictures": {"quick": "quick", "standard": "compact"},
    "many small photos": {"quick": "photos_quick", "standard": "photos_from_scratch"},
    "photos": {"quick": "photos_quick", "standard": "photos"},
}
_LARGER: dict[Family, tuple[str, ...]] = {"small grey pictures": ("accurate",)}
"""Presets that a sweep tries in addition to those of `_PRESETS`."""
_EPOCHS_OF_FEW = ((300, 20), (1000, 10))
"""Epochs of `photos` if there are fewer pictures than the first number: fine-tuning needs some hundred steps."""
_SECONDS = {
    "quick": (15, 0.0005),
    "compact": (20, 0.004),
    "photos_from_scratch": (30, 0.1),
    "photos_quick": (30, 0.05),
    "photos": (30, 0.04),
}
"""Approximate CPU seconds of `fit`: fixed, and per picture, from the tables of docs/explanation/accuracy.md (AMD
EPYC)."""
_EPOCH_SECONDS = 0.037
"""CPU seconds a picture of an epoch of `photos`."""
_PARALLEL = 0.8
"""The share of all cores that `fit` uses on average."""


@dataclass(frozen=True)
class Choice:
    """A preset, lines that explain the choice and its alternatives, and the approximate `seconds` of its training.

    `epochs` is None to keep the preset's own. `others` are presets for the same kind of pictures.
    """

    preset: str
    lines: tuple[str, ...]
    epochs: int | None = None
    seconds: float = 0.0
    others: tuple[Preset, ...] = ()

    def chosen(self) -> Preset:
        """Return the preset with its epochs."""
        return with_recipe(preset_named(self.preset), {"epochs": self.epochs})


def family_of(kind: PictureKind, count: int) -> Family:
    """Return the family of this many pictures of a kind."""
    side = max(kind.height, kind.width)
    if side <= _LARGEST_DRAWING and not kind.has_colour:
        return "small grey pictures"
    return "many small photos" if side <= _LARGEST_SMALL_PHOTO and count >= _MANY_SMALL_PHOTOS else "photos"


def preset_for(family: Family, count: int, effort: Effort = "standard") -> Preset:
    """Return the preset for this many pictures of a family, with its epochs."""
    return _with_epochs(_PRESETS[family][effort], count)


def choose_preset(dataset: Dataset, effort: Effort | None, *, size: Size | None, colour: Colour | None) -> Choice:
    """Return the preset for these pictures. `size` and `colour` are what the user asked for, None for nothing.

    Raises DataError if none of the pictures looked at can be read.
    """
    kind, count = kind_of(dataset), len(dataset.pictures)
    family = family_of(kind, count)
    wanted = effort or "standard"
    preset = _PRESETS[family][wanted]
    why = f"the pictures are {kind}"
    if family != "small grey pictures" and (obstacle := _obstacle(size, colour)):
        line = f"chosen: --preset photos_from_scratch, because {why}, and {obstacle}"
        return Choice("photos_from_scratch", (line,), seconds=_seconds("photos_from_scratch", count))
    other: Effort = "quick" if wanted == "standard" else "standard"
    aim, time = "a first look" if other == "quick" else "a better model", _time(_PRESETS[family][other], count)
    epochs = _epochs(preset, count)
    named = f"--preset {preset}" if epochs is None else f"--preset {preset} --epochs {epochs}"
    return Choice(
        preset,
        (
            f"chosen: {named}, because {why}; about {_time(preset, count)} for {count_of(count, 'picture')}",
            f"for {aim} in about {time}: --effort {other}; for the tutorial's network: --preset seed",
        ),
        epochs,
        _seconds(preset, count),
        tuple(
            _with_epochs(name, count)
            for name in (*_PRESETS[family].values(), *_LARGER.get(family, ()))
            if name != preset
        ),
    )


def _obstacle(size: Size | None, colour: Colour | None) -> str | None:
    """Return why ImageNet's weights cannot be used, None if they can."""
    if installed_weights() is None:
        return "ImageNet's weights are not installed (make setup-training)"
    if colour == "grey":
        return "ImageNet's weights need colour, and --colour grey removes it"
    if isinstance(size, tuple) and min(size) < _SMALLEST_PHOTO:
        return f"ImageNet's weights need {_SMALLEST_PHOTO} pixels or more, and --size gives fewer"
    return None


def _epochs(preset: str, count: int) -> int | None:
    """Return how many epochs so few photos need, None if the preset's own are right."""
    return next((epochs for most, epochs in _EPOCHS_OF_FEW if count < most), None) if preset == "photos" else None


def _with_epochs(preset: str, count: int) -> Preset:
    return with_recipe(preset_named(preset), {"epochs": _epochs(preset, count)})


def _seconds(preset: str, count: int) -> float:
    fixed, each = _SECONDS[preset]
    if preset == "photos":
        each += _EPOCH_SECONDS * (_epochs(preset, count) or preset_named(preset).recipe.epochs)
    return (fixed + each * count) / max(1.0, _PARALLEL * available_cores())


def _time(preset: str, count: int) -> str:
    seconds = _seconds(preset, count)
    return count_of(round(seconds / 60), "minute") if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} seconds"
