"""Heat maps: how much each place of a picture speaks for a class, as a grid of numbers and drawn over the picture."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Box, Image, PreprocessingSpec, prepare

_SMALL, _LONGEST = 224, 512
_LEAST_ALPHA, _MOST_ALPHA = 0.15, 0.6
"""How much of a pixel is the map's colour, at the coldest and at the hottest place."""
_UNSEEN = 0.4
"""What is left of the brightness of a place that the network does not see."""


def canvas(image: Image) -> Image:
    """Return a decoded picture in colour (H, W, 3), of a size to look at: its longer side has 224 to 512 pixels.

    A small picture is enlarged by a whole number, so that its pixels can be distinguished.
    """
    scale = min(1.0, _LONGEST / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    drawn = prepare(image, PreprocessingSpec(height=height, width=width, colour="rgb"))
    factor = -(-_SMALL // max(height, width))
    return np.asarray(drawn.repeat(factor, axis=0).repeat(factor, axis=1), np.uint8)


def overlay(image: Image, grid: NDArray[np.float32], box: Box) -> Image:
    """Return a picture (H, W, 3) with the map of its part `box` drawn over it, from blue (lowest) to red (highest).

    What lies outside of that part is dark.
    """
    height, width = image.shape[:2]
    left, top = round(box.left * width), round(box.top * height)
    below, beside = round((box.top + box.height) * height), round((box.left + box.width) * width)
    heat = enlarged(grid, max(1, below - top), max(1, beside - left))[max(0, -top) :, max(0, -left) :]
    top, left = max(0, top), max(0, left)
    heat = heat[: height - top, : width - left]
    seen = np.s_[top : top + heat.shape[0], left : left + heat.shape[1]]
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_TURBO)[..., ::-1]
    alpha = _LEAST_ALPHA + (_MOST_ALPHA - _LEAST_ALPHA) / 255 * heat[..., np.newaxis].astype(np.float32)
    drawn = image * np.float32(_UNSEEN)
    drawn[seen] = (1 - alpha) * image[seen] + alpha * colours
    return np.asarray(np.rint(drawn), np.uint8)


def enlarged(grid: NDArray[np.float32], height: int, width: int) -> Image:
    """Return a map as grey levels (height, width), smoothed by a Gaussian as wide as one of its places.

    A place's receptive field is larger than the place itself. Without smoothing, the hottest pixels would be islands in
    the middle of the places, and more of them would have to be hidden before the label's probability falls.
    """
    spec = PreprocessingSpec(height=height, width=width, colour="grey", interpolation="linear")
    levels = prepare(_levels(grid), spec)[..., 0].astype(np.float32)
    place = width / grid.shape[1], height / grid.shape[0]
    return _levels(cv2.GaussianBlur(levels, (0, 0), sigmaX=place[0], sigmaY=place[1], borderType=cv2.BORDER_REPLICATE))


def png_of(image: Image) -> bytes:
    """Return a picture (H, W, 3) as PNG."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def _levels(grid: NDArray[Any]) -> Image:
    """Return a map as grey levels, from its least value to its largest; one that is the same everywhere is 0."""
    low, high = float(grid.min()), float(grid.max())
    return np.asarray(np.rint((grid - low) * (255 / (high - low) if high > low else 0)), np.uint8)
