"""Trace written digits to the strokes of a pen, so that they can be drawn anew, at any size and in any place."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Stroke = list[Point]

_FINER = 4
_COARSEST = 0.2
"""By how many pixels of the digit a stroke's points may leave out of its line."""


def strokes_of(digit: NDArray[np.uint8]) -> list[Stroke]:
    """Return the strokes, as points (x, y) in pixels, of a digit that is light on dark."""
    height, width = digit.shape
    fine = cv2.resize(digit, (width * _FINER, height * _FINER), interpolation=cv2.INTER_CUBIC)
    paths = _paths({(int(x), int(y)) for y, x in np.argwhere(_thinned(fine > 127))})
    return [_simplified([((x + 0.5) / _FINER, (y + 0.5) / _FINER) for x, y in path]) for path in paths]


def placed(strokes: list[Stroke], *, height: float, position: Point, sheet: float, pen: float) -> list[Stroke]:
    """Return the strokes scaled to a height, without the pen, in a place of the sheet: (0, 0) is its top left corner as
    far as the drawing fits, (1, 1) its bottom right one."""
    points = np.array([point for stroke in strokes for point in stroke])
    low, high = points.min(axis=0), points.max(axis=0)
    scale = height / max(high[1] - low[1], high[0] - low[0], 1e-6)
    room = sheet - (high - low) * scale - pen - 2
    start = np.array(position) * room + pen / 2 + 1
    return [[tuple(((np.array(point) - low) * scale + start).tolist()) for point in stroke] for stroke in strokes]


def _thinned(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin to lines of one pixel: Zhang and Suen, "A Fast Parallel Algorithm for Thinning Digital Patterns" (1984)."""
    picture = np.pad(ink, 1)
    while True:
        before = picture
        for first in (True, False):
            around = [
                np.roll(picture, shift, (0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            turns = sum((~around[i] & around[(i + 1) % 8]).astype(int) for i in range(8))
            count = sum(each.astype(int) for each in around)
            north, east, south, west = around[0], around[2], around[4], around[6]
            one, other = (
                (north & east & south, east & south & west) if first else (north & east & west, north & south & west)
            )
            picture = picture & ~((turns == 1) & (count >= 2) & (count <= 6) & ~one & ~other)
        if (picture == before).all():
            return picture[1:-1, 1:-1]


def _paths(pixels: set[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Return walks that together pass every pixel, from loose ends if there are any."""
    left, walks = set(pixels), []
    while left:
        ends = [pixel for pixel in left if len(list(_near(pixel, left))) <= 1]
        walk = [min(ends or left)]
        walk[:0] = list(_near(walk[0], pixels - left))[:1]  # from where another stroke passed
        while True:
            left.discard(walk[-1])
            following = next(_near(walk[-1], left), None)
            if following is None:
                walk += [pixel for pixel in _near(walk[-1], pixels) if pixel not in walk[-3:]][:1]
                break
            walk.append(following)
        walks.append(walk)
    return walks


def _near(pixel: tuple[int, int], among: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    x, y = pixel
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        if (x + dx, y + dy) in among:
            yield x + dx, y + dy


def _simplified(stroke: Stroke) -> Stroke:
    points = cv2.approxPolyDP(np.array(stroke, np.float32).reshape(-1, 1, 2), _COARSEST, closed=False)
    return [(float(x), float(y)) for x, y in points.reshape(-1, 2)]
