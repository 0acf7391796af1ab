"""Scale and centre a drawing on a plain background, as MNIST's makers did with their digits.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (Proc. IEEE 86(11), 1998),
section III A: a digit fits into 20 of 28 pixels, and its centre of mass lies in the middle. A picture that was made so
stays as it is, up to a grey level. This module needs OpenCV and NumPy alone.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]

_INNER = 20 / 28
"""What is drawn fits into this share of each side."""
_LEAST_CONTRAST = 32
"""Levels between the ground and the strongest ink; with fewer, nothing is drawn."""
_INK = 4
"""A pixel is ink if it exceeds the ground by at least a quarter of the strongest ink's excess."""
_MARGIN = 10
"""Around the ink a tenth of its longer side is kept, for the faint edges of strokes."""
_MOST_TARGETS = 10
"""A picture with a longer side than this many targets is made smaller before it is looked at."""


class Framed(NamedTuple):
    """A framed picture, and the part of the original that it shows, as shares of the original's width and height.

    The part is measured from the upper left corner. It may reach beyond the original.
    """

    image: Grey
    left: float
    top: float
    width: float
    height: float


def frame(image: Grey, height: int, width: int) -> Framed | None:
    """Return a picture (height, width) of what is drawn: light on black, scaled, and centred by mass.

    The mean level of the border is the ground. A picture with a light ground is inverted; then the ground becomes 0,
    and the strongest ink 255. None if nothing is drawn: no pixel differs much from the ground.
    """
    longer = max(image.shape)
    if longer > (most := _MOST_TARGETS * max(height, width)):
        whole_height, whole_width = (max(1, round(side * most / longer)) for side in image.shape)
        image = np.asarray(cv2.resize(image, (whole_width, whole_height), interpolation=cv2.INTER_AREA), np.uint8)
    border = border_level(image)
    if 2 * border > 255:
        image, border = ~image, 255 - border
    ground = round(border)
    strongest = int(cv2.minMaxLoc(image)[1])
    if strongest - ground < _LEAST_CONTRAST:
        return None
    level = ground + (strongest - ground) // _INK
    left, top, ink_width, ink_height = cv2.boundingRect(cv2.threshold(image, level, 255, cv2.THRESH_BINARY)[1])
    margin = max(1, max(ink_width, ink_height) // _MARGIN)
    above, beside = max(0, top - margin), max(0, left - margin)
    ink = image[above : top + ink_height + margin, beside : left + ink_width + margin]

    scale = _INNER * min(height / ink_height, width / ink_width)
    old_height, old_width = ink.shape
    new_height = max(1, min(height, round(old_height * scale)))
    new_width = max(1, min(width, round(old_width * scale)))
    if (new_height, new_width) != (old_height, old_width):
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        ink = np.asarray(cv2.resize(ink, (new_width, new_height), interpolation=interpolation), np.uint8)
        strongest = max(ground + 1, int(cv2.minMaxLoc(ink)[1]))  # thin lines have become fainter
    if ground or strongest < 255:
        ink = np.asarray(cv2.LUT(ink, _stretched(ground, strongest)), np.uint8)

    mass, down, right = _moments(new_height, new_width).dot(ink.astype(np.float64).ravel()).tolist()
    rows, from_row = _placed(height, new_height, down / mass)
    columns, from_column = _placed(width, new_width, right / mass)
    framed = np.zeros((height, width), np.uint8)
    framed[rows, columns] = ink[from_row, from_column]
    whole_height, whole_width = image.shape
    by_row, by_column = old_height / new_height, old_width / new_width
    return Framed(
        framed,
        left=(beside - (columns.start - from_column.start) * by_column) / whole_width,
        top=(above - (rows.start - from_row.start) * by_row) / whole_height,
        width=width * by_column / whole_width,
        height=height * by_row / whole_height,
    )


def border_level(image: NDArray[np.uint8]) -> float:
    """Return the mean level of the outermost ring of pixels of a picture (H, W) or (H, W, C), over all channels."""
    means = cv2.mean(image, _border_mask(*image.shape[:2]))  # of four channels, 0 if there are fewer
    return sum(means) / (1 if image.ndim == 2 else image.shape[2])


def _placed(side: int, length: int, centre: float) -> tuple[slice, slice]:
    """Return the slice of a side, and the slice of the piece, that put the piece's `centre` into the middle.

    What then lies outside the side is cut off: margin, and the far end of a lopsided drawing.
    """
    start = round(side / 2 - centre)
    end = min(side, start + length)
    return slice(max(0, start), end), slice(max(0, -start), end - start)


@lru_cache(maxsize=64)
def _border_mask(height: int, width: int) -> Grey:
    """Return the (height, width) mask of the outermost ring of pixels."""
    mask = np.ones((height, width), np.uint8)
    mask[1:-1, 1:-1] = 0
    return mask


@lru_cache(maxsize=256)
def _moments(height: int, width: int) -> NDArray[np.float64]:
    """Return the weight of each pixel in a picture's mass and in its first moments: (3, height * width).

    This takes a third of the time of cv2.moments, and is exact: the sums are whole numbers.
    """
    rows, columns = np.indices((height, width)).reshape(2, -1)
    return np.stack([np.ones(height * width), rows, columns])


@lru_cache(maxsize=1024)
def _stretched(ground: int, strongest: int) -> Grey:
    """Return the new value of each level, with which the ground becomes 0 and the strongest ink 255."""
    span = strongest - ground
    levels = ((np.arange(256) - ground) * 255 + span // 2) // span
    return levels.clip(0, 255).astype(np.uint8)
