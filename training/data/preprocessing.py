"""Fit a preset's preprocessing to a data set: the size and the colour of its own pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from app.contract.header import read_header
from app.contract.preprocessing import PreprocessingSpec, prepare, preprocess
from app.errors import ImageError
from training.data.dataset import Dataset, Picture
from training.errors import DataError

Size = tuple[int, int] | Literal["data"]
"""(height, width); "data" is the commonest of the data's own."""
Colour = Literal["grey", "rgb", "data"]

_LARGEST_SIDE = 224
_LOOKED_AT = 200
_LOOKED_AT_FOR_COLOUR = 40
_SMALL = PreprocessingSpec(version=2, height=32, width=32, colour="rgb", jpeg_scale="reduced")
_COLOURED = 8.0
"""Mean difference in levels between the strongest and the weakest channel, above which a picture has colour; paper,
lamps and JPEG cause a few levels in grey pictures."""


@dataclass(frozen=True)
class PictureKind:
    """What kind of pictures a data set holds: the medians of their heights and widths, and whether most have colour."""

    height: int
    width: int
    has_colour: bool

    @property
    def side(self) -> int:
        return min(self.height, self.width)

    def __str__(self) -> str:
        return f"{'colour' if self.has_colour else 'grey'} and {self.width}x{self.height} pixels in the middle"


def preprocessing_for(
    dataset: Dataset, preset: PreprocessingSpec, *, size: Size | None, colour: Colour | None
) -> PreprocessingSpec:
    """Return the preset's preprocessing with the requested size and colour; None keeps the preset's.

    Raises DataError if the size is "data" and none of the sampled pictures can be read.
    """
    changes: dict[str, Any] = {}
    if colour is not None:
        changes["colour"] = _colour_of(dataset) if colour == "data" else colour
    if size is not None:
        height, width = _size_of(dataset) if size == "data" else size
        changes |= {"height": height, "width": width}
    return preset.model_copy(update=changes)


def kind_of(dataset: Dataset) -> PictureKind:
    """Return the kind of pictures, from some that can be read. Raises DataError if none can."""
    sizes, colours = [], []
    for picture in dataset.pictures[:: max(1, len(dataset.pictures) // _LOOKED_AT_FOR_COLOUR)]:
        try:
            if isinstance(picture.content, np.ndarray):
                size = picture.content.shape[:2]
                small = prepare(picture.content, _SMALL)
            else:
                data = picture.encoded()
                header = read_header(data)
                size = header.height, header.width
                small = preprocess(data, _SMALL, header=header)
        except (ImageError, DataError):
            continue
        sizes.append(size)
        colours.append(float(np.ptp(small.astype(np.int16), axis=-1).mean()) > _COLOURED)
    if not colours:
        raise DataError(f"None of the first pictures of {dataset.origin} can be read, so their kind is not known.")
    height, width = np.median(sizes, axis=0).astype(int).tolist()
    return PictureKind(height, width, has_colour=float(np.mean(colours)) >= 0.5)


def _size_of(dataset: Dataset) -> tuple[int, int]:
    """Return the commonest (height, width) of some pictures, scaled down to a side that a network can take."""
    counts: Counter[tuple[int, int]] = Counter()
    for picture in _some(dataset):
        if isinstance(picture.content, np.ndarray):
            counts[picture.content.shape[0], picture.content.shape[1]] += 1
            continue
        try:
            header = read_header(picture.encoded())
        except (ImageError, DataError):
            continue
        counts[header.height, header.width] += 1
    if not counts:
        raise DataError(f"None of the first pictures of {dataset.origin} can be read, so their size is not known.")
    ((height, width), _), *_ = counts.most_common(1)
    scale = min(1.0, _LARGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _colour_of(dataset: Dataset) -> Literal["grey", "rgb"]:
    """Return "rgb" if any of the sampled pictures has colour. Files count as coloured: a grey one loses nothing."""
    is_coloured = any(
        not isinstance(picture.content, np.ndarray) or picture.content.ndim == 3 for picture in _some(dataset)
    )
    return "rgb" if is_coloured else "grey"


def _some(dataset: Dataset) -> Sequence[Picture]:
    return dataset.pictures[:: max(1, len(dataset.pictures) // _LOOKED_AT)]
