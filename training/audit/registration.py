"""Align pictures: find the shift, rotation and zoom that make two alike, and measure how alike they then are.

Many pairs are aligned at once, each by Gauss-Newton steps on the first picture's own gradients (inverse compositional
alignment, Baker and Matthews 2004) with free contrast and brightness. This module does not know which pairs are worth
aligning, nor how similar copies must be.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MOST_TURN = 0.16  # radians, 9°
_MOST_ZOOM = 0.22  # logarithm, 1.25 times
_MOST_SHIFT = 0.22  # of the side
_REMAP_ROWS = 30_000  # OpenCV addresses rows with 16 bits


@dataclass(frozen=True, slots=True)
class Alignment:
    """For each pair, (B,): `shift` (B, 2) x and y in pixels, `turn` in radians, `zoom` as a logarithm.

    They say where in the second picture a point of the first lies, about the centre.
    """

    shift: Floats
    turn: Floats
    zoom: Floats

    def of(self, rows: NDArray[np.intp]) -> "Alignment":
        return Alignment(self.shift[rows], self.turn[rows], self.zoom[rows])

    def scaled(self, factor: float) -> "Alignment":
        return Alignment(self.shift * np.float32(factor), self.turn, self.zoom)

    def inverse(self) -> "Alignment":
        cosine, sine = _matrix(-self.turn, -self.zoom)
        x, y = self.shift[:, 0], self.shift[:, 1]
        shift = np.stack([-(cosine * x - sine * y), -(sine * x + cosine * y)], axis=1)
        return Alignment(shift, -self.turn, -self.zoom)


def align_by_shift(first: Floats, second: Floats) -> Alignment:
    """Return the whole-pixel shifts that make pictures (B, S, S) most alike, as a start for `refine`."""
    side = first.shape[1]
    reach = max(1, round(side * _MOST_SHIFT))
    product = np.conj(scipy.fft.rfft2(first - first.mean(axis=(1, 2), keepdims=True))) * scipy.fft.rfft2(second)
    correlation = scipy.fft.irfft2(product, s=(side, side))
    offsets = np.r_[0 : reach + 1, -reach:0]
    best = correlation[:, offsets][:, :, offsets].reshape(len(first), -1).argmax(axis=1)
    rows, columns = np.divmod(best, len(offsets))
    zeros = np.zeros(len(first), np.float32)
    return Alignment(np.stack([offsets[columns], offsets[rows]], axis=1).astype(np.float32), zeros, zeros)


def refine(first: Floats, second: Floats, start: Alignment, *, steps: int) -> Alignment:
    """Return better alignments of pictures (B, S, S), after `steps` Gauss-Newton steps."""
    count, side = len(first), first.shape[1]
    x, y = _grid(side)
    down, across = np.zeros_like(first), np.zeros_like(first)
    down[:, 1:-1] = (first[:, 2:] - first[:, :-2]) / 2
    across[:, :, 1:-1] = (first[:, :, 2:] - first[:, :, :-2]) / 2
    parts = [across, down, down * x - across * y, across * x + down * y, first, np.ones_like(first)]
    jacobian = np.stack(parts, axis=1).reshape(count, 6, -1)
    flat = first.reshape(count, -1)
    # Of all points, inside or not: a Gauss-Newton step needs no exact curvature, and this one is computed once.
    inverse = np.linalg.inv(jacobian @ jacobian.transpose(0, 2, 1) + np.eye(6, dtype=np.float32) * np.float32(1e-3))
    padded = _pad(second)
    found = start
    most = side * _MOST_SHIFT
    for _ in range(steps):
        warped, inside = _warp(padded, found, side)
        difference = (warped - flat) * inside
        change = (inverse @ (jacobian @ difference[:, :, None]))[:, :, 0]
        contrast = np.clip(1 + change[:, 4], 0.3, 3.0)
        move = np.clip(change[:, :2] / contrast[:, None], -2, 2)
        turn = np.clip(change[:, 2] / contrast, -0.1, 0.1)
        zoom = np.clip(change[:, 3] / contrast, -0.1, 0.1)
        cosine, sine = _matrix(found.turn, found.zoom)
        moved = np.stack([cosine * move[:, 0] - sine * move[:, 1], sine * move[:, 0] + cosine * move[:, 1]], axis=1)
        found = Alignment(
            np.clip(found.shift - moved, -most, most),
            np.clip(found.turn - turn, -_MOST_TURN, _MOST_TURN),
            np.clip(found.zoom - zoom, -_MOST_ZOOM, _MOST_ZOOM),
        )
    return found


def correlation(first: Floats, second: Floats, alignment: Alignment) -> Floats:
    """Return the similarity (B,) of pictures (B, S, S) in the part that both cover: 1 if they are equal up to contrast.

    Only one of the two is resampled, which softens it. Both ways are tried, and the better result counts, because one
    of the two may have been softened already when it was copied from the other.
    """
    there = _correlation(first, *_warp(_pad(second), alignment, first.shape[1]))
    back = _correlation(second, *_warp(_pad(first), alignment.inverse(), first.shape[1]))
    best: Floats = np.maximum(there, back)
    return best


def correlation_with_clipping(first: Floats, second: Floats, alignment: Alignment) -> Floats:
    """Return the same correlation for grey levels 0 to 255, allowing for levels that were brightened beyond white and
    cut off."""
    there = _clipped(first, *_warp(_pad(second), alignment, first.shape[1]))
    back = _clipped(second, *_warp(_pad(first), alignment.inverse(), first.shape[1]))
    best: Floats = np.maximum(there, back)
    return best


def _correlation(still: Floats, warped: Floats, inside: Floats) -> Floats:
    a, b = (_centred(values, inside) for values in (still.reshape(len(still), -1), warped))
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)) + np.float32(1e-6)
    result: Floats = (a * b).sum(axis=1) / scale
    return result


def _clipped(still: Floats, warped: Floats, inside: Floats) -> Floats:
    """Return the better correlation after either picture is fitted to the other's brightness, clipped at white."""
    flat = still.reshape(len(still), -1)
    found = []
    for dark, light in ((flat, warped), (warped, flat)):
        free = inside * (light < 250)  # what was cut off says nothing of contrast and brightness
        a, b = _centred(dark, free), _centred(light, free)
        contrast = (a * b).sum(axis=1) / ((a * a).sum(axis=1) + np.float32(1e-3))
        weight = free.sum(axis=1) + np.float32(1e-3)
        level = (light * free).sum(axis=1) / weight - contrast * (dark * free).sum(axis=1) / weight
        predicted = np.minimum(dark * contrast[:, None] + level[:, None], 255).astype(np.float32)
        found.append(_correlation(light, predicted, inside))
    best: Floats = np.maximum(*found)
    return best


def _centred(values: Floats, inside: Floats) -> Floats:
    mean = (values * inside).sum(axis=1, keepdims=True) / (inside.sum(axis=1, keepdims=True) + np.float32(1e-6))
    result: Floats = (values - mean) * inside
    return result


def _warp(padded: Floats, alignment: Alignment, side: int) -> tuple[Floats, Floats]:
    """Return the pictures resampled by their alignments, (B, S·S), and which of the points lie inside them, 0 or 1."""
    count, margin = len(alignment.turn), (padded.shape[1] - side) // 2
    x, y = _grid(side)
    cosine, sine = (values[:, None, None] for values in _matrix(alignment.turn, alignment.zoom))
    across = cosine * x - sine * y + (alignment.shift[:, 0, None, None] + np.float32((side - 1) / 2))
    down = sine * x + cosine * y + (alignment.shift[:, 1, None, None] + np.float32((side - 1) / 2))
    slack = np.float32(0.01)
    inside = (across >= -slack) & (across <= side - 1 + slack) & (down >= -slack) & (down <= side - 1 + slack)
    height, width = padded.shape[1:]
    across = np.clip(across + margin, 0, width - 1)
    down = np.clip(down + margin, 0, height - 1)
    warped = np.empty((count, side * side), np.float32)
    at_once = _REMAP_ROWS // height
    for begin in range(0, count, at_once):
        part = slice(begin, min(begin + at_once, count))
        rows = down[part] + (np.arange(part.stop - begin, dtype=np.float32) * height)[:, None, None]
        tall = cv2.remap(
            padded[part].reshape(-1, width),
            across[part].reshape(-1, side),
            rows.reshape(-1, side),
            cv2.INTER_LINEAR,
        )
        warped[part] = tall.reshape(-1, side * side)
    return warped, inside.reshape(count, -1).astype(np.float32)


def _pad(images: Floats) -> Floats:
    margin = images.shape[1] // 4
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="edge")


def _matrix(turn: Floats, zoom: Floats) -> tuple[Floats, Floats]:
    factor = np.exp(zoom)
    return factor * np.cos(turn), factor * np.sin(turn)


def _grid(side: int) -> tuple[Floats, Floats]:
    steps = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    return np.broadcast_to(steps, (side, side)), np.broadcast_to(steps[:, None], (side, side))
