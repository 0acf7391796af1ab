"""Choose a preset for data when none was named: look at some of its pictures, and say what was chosen and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.contract.header import read_header
from app.contract.preprocessing import Image, PreprocessingSpec, preprocess
from app.errors import ImageError
from app.system.cores import available_cores
from app.system.wording import count_of
from training.data.dataset import Dataset, Picture
from training.data.preprocessing import Colour, Size
from training.errors import DataError
from training.model.installed_weights import installed_weights
from training.options import Effort

_LOOKED_AT = 100
_LARGEST_DRAWING = 40
"""Pixels of the longer side: grey pictures up to this size are characters or drawings, and not photos."""
_COLOURED_LEVELS, _COLOURED_PIXELS = 16, 0.01
"""A picture has colour if in a hundredth of its pixels the channels differ by so many levels of 255."""
_SMALLEST_PHOTO = 96
"""Pixels of the shorter side that a network taught by ImageNet's photos needs."""

_LARGEST_SMALL_PHOTO, _MANY_SMALL_PHOTOS = 128, 1000
"""Pixels of the longer side, and pictures: of so many small photos a small network learns more from nothing than a
large one knows of others (hands of 100x100 pixels: 99.5 and 93.7 %)."""

_PRESETS: dict[str, dict[Effort, str]] = {
    "small grey pictures": {"quick": "quick", "standard": "compact"},
    "many small photos": {"quick": "photos_quick", "standard": "photos_from_scratch"},
    "photos": {"quick": "photos_quick", "standard": "photos"},
}
_EPOCHS_OF_FEW = ((300, 20), (1000, 10))
"""Epochs of `photos` if there are fewer pictures than the first number: fine-tuning needs some hundred steps."""
_SECONDS = {
    "quick": (15, 0.0005),
    "compact": (20, 0.004),
    "photos_from_scratch": (30, 0.1),
    "photos_quick": (30, 0.04),
    "photos": (30, 0.1),
}
"""CPU seconds of `fit`: of itself, and a picture. Measured on MNIST, sign_digits and photos of clothes (AMD EPYC)."""
_PARALLEL = 0.8
"""The share of all cores that `fit` uses on average."""


@dataclass(frozen=True)
class Choice:
    """The name of a preset, its epochs unless its own are right, and lines that say why, how long it will take, and
    what else there is."""

    preset: str
    lines: tuple[str, ...]
    epochs: int | None = None


@dataclass(frozen=True)
class _Look:
    """How many pictures there are, and what some are like: (height, width) in the middle, whether any has colour."""

    count: int
    height: int
    width: int
    is_coloured: bool

    @property
    def kind(self) -> str:
        side = max(self.height, self.width)
        if side <= _LARGEST_DRAWING and not self.is_coloured:
            return "small grey pictures"
        is_small = side <= _LARGEST_SMALL_PHOTO and self.count >= _MANY_SMALL_PHOTOS
        return "many small photos" if is_small else "photos"

    def __str__(self) -> str:
        return f"{'colour' if self.is_coloured else 'grey'} and {self.width}x{self.height} pixels in the middle"


def choose_preset(dataset: Dataset, effort: Effort | None, *, size: Size | None, colour: Colour | None) -> Choice:
    """Return the preset for these pictures, at a size and colour that were asked for, if they were.

    Raises DataError if none of the pictures looked at can be read.
    """
    look = _look_at(dataset)
    wanted = effort or "standard"
    preset = _PRESETS[look.kind][wanted]
    why = f"the pictures are {look}"
    if look.kind != "small grey pictures" and (obstacle := _obstacle(size, colour)):
        return Choice("photos_from_scratch", (f"chosen: --preset photos_from_scratch, because {why}, and {obstacle}",))
    count = look.count
    other: Effort = "quick" if wanted == "standard" else "standard"
    aim, time = "a first look" if other == "quick" else "a better model", _time(_PRESETS[look.kind][other], count)
    epochs = next((epochs for most, epochs in _EPOCHS_OF_FEW if count < most), None) if preset == "photos" else None
    named = f"--preset {preset}" if epochs is None else f"--preset {preset} --epochs {epochs}"
    return Choice(
        preset,
        (
            f"chosen: {named}, because {why}; about {_time(preset, count)} for {count_of(count, 'picture')}",
            f"for {aim} in about {time}: --effort {other}; for the tutorial's network: --preset seed",
        ),
        epochs,
    )


def _obstacle(size: Size | None, colour: Colour | None) -> str | None:
    """Return why ImageNet's weights cannot be used, None if they can."""
    if installed_weights() is None:
        return "ImageNet's weights are not installed (make setup-training)"
    if colour == "grey":
        return "ImageNet's weights take colour, which --colour grey leaves out"
    if isinstance(size, tuple) and min(size) < _SMALLEST_PHOTO:
        return f"ImageNet's weights take {_SMALLEST_PHOTO} pixels or more, and --size gives less"
    return None


def _time(preset: str, count: int) -> str:
    fixed, each = _SECONDS[preset]
    seconds = (fixed + each * count) / max(1.0, _PARALLEL * available_cores())
    return count_of(round(seconds / 60), "minute") if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} seconds"


def _look_at(dataset: Dataset) -> _Look:
    sizes: list[tuple[int, int]] = []
    is_coloured = False
    for picture in dataset.pictures[:: max(1, len(dataset.pictures) // _LOOKED_AT)]:
        try:
            height, width, has_colour = _facts(picture)
        except (ImageError, DataError):
            continue  # the reading of all pictures reports it
        sizes.append((height, width))
        is_coloured = is_coloured or has_colour
    if not sizes:
        raise DataError(f"None of the first pictures of {dataset.origin} can be read, so no preset can be chosen.")
    heights, widths = zip(*sizes, strict=True)
    return _Look(len(dataset.pictures), _middle(heights), _middle(widths), is_coloured)


def _facts(picture: Picture) -> tuple[int, int, bool]:
    if isinstance(picture.content, np.ndarray):
        image = picture.content
        return image.shape[0], image.shape[1], image.ndim == 3 and _has_colour(image)
    data = picture.encoded()
    header = read_header(data)
    small = preprocess(data, PreprocessingSpec(version=2, height=64, width=64, colour="rgb", jpeg_scale="reduced"))
    return header.height, header.width, _has_colour(small)


def _has_colour(image: Image) -> bool:
    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return float((spread > _COLOURED_LEVELS).mean()) > _COLOURED_PIXELS


def _middle(values: Sequence[int]) -> int:
    return int(np.median(values))
