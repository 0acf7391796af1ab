"""Compare pairs of pictures in detail, with more pixels and in colour: thumbnails of two different shirts may be equal.

Details are what remains after slow changes of brightness are removed. Two copies of one picture agree in their details
once they are aligned exactly. This module does not know how the pairs were found, nor how similar two copies must be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image, PreprocessingSpec, prepare, preprocess
from training.audit.registration import Floats
from training.data.dataset import Picture

SIDE = 128  # pixels
_SPEC = PreprocessingSpec(version=2, height=SIDE, width=SIDE, colour="rgb", jpeg_scale="reduced")
_GREY = PreprocessingSpec(height=SIDE, width=SIDE, colour="grey")
_ITERATIONS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-4)
_SMOOTH = 0.8  # pixels: two ways of resampling may differ by this much
_DETAIL = 4.0  # pixels: slower changes are light and shadow
_EVEN = 3.0  # grey levels: fainter details are noise, and count for less
_MARGIN = np.ones((5, 5), np.uint8)
_WHITE = 250
_LEAST_SEEN = 0.1  # share of the pixels


@dataclass(frozen=True, slots=True)
class Laid:
    """How the second picture of a pair lies over the first, in the thumbnails: see `registration.Alignment`.

    `shift` is in fractions of the side.
    """

    shift: tuple[float, float]
    turn: float
    zoom: float
    mirrored: bool


def reader(pictures: Sequence[Picture]) -> Callable[[int], Image]:
    """Return a function from a row to its picture, (SIDE, SIDE, 3), as `detail_correlation` takes it."""

    def read(row: int) -> Image:
        content = pictures[row].content
        if isinstance(content, np.ndarray):
            return prepare(content, _SPEC)
        return preprocess(pictures[row].encoded(), _SPEC)

    return read


def detail_correlation(first: Image, second: Image, laid: Laid) -> float:
    """Return the similarity of the details of two pictures (SIDE, SIDE, 3): 1 if they are equal up to contrast.

    `laid` is refined to an affine map first: a rotated oblong picture that is scaled to a square is sheared, too. The
    result is 0 if the two cannot be aligned.
    """
    second = np.ascontiguousarray(second[:, ::-1]) if laid.mirrored else second
    grey = [prepare(image, _GREY) for image in (first, second)]
    try:
        _, matrix = cv2.findTransformECC(grey[0], grey[1], _matrix(laid), cv2.MOTION_AFFINE, _ITERATIONS)
    except cv2.error:  # no overlap, or a picture of one colour
        return 0.0
    still, moving = first.astype(np.float32), second.astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (SIDE, SIDE)
    moved = np.asarray(cv2.warpAffine(moving, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)
    inside = cv2.warpAffine(np.ones(size, np.uint8), matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    inside = cv2.erode(inside, _MARGIN, borderValue=0)
    # Levels that were brightened beyond white are lost.
    is_kept = np.all((still < _WHITE) & (moved < _WHITE), axis=2)
    unspoiled = cv2.erode(np.asarray(is_kept, np.uint8), _MARGIN)
    seen = np.asarray(inside, np.uint8) * np.asarray(unspoiled, np.uint8)
    if seen.mean() < _LEAST_SEEN:
        seen = np.asarray(inside, np.uint8)
    return _correlation(_details(still), _details(moved), seen[..., None].astype(np.float32))


def _matrix(laid: Laid) -> Floats:
    cosine, sine = np.exp(laid.zoom) * np.cos(laid.turn), np.exp(laid.zoom) * np.sin(laid.turn)
    middle = (SIDE - 1) / 2
    x = middle + laid.shift[0] * SIDE - (cosine - sine) * middle
    y = middle + laid.shift[1] * SIDE - (sine + cosine) * middle
    return np.array([[cosine, -sine, x], [sine, cosine, y]], np.float32)


def _details(image: Floats) -> Floats:
    """Return the picture's details, normalised to the same strength everywhere, so that faint ones count beside
    edges."""
    smooth = cv2.GaussianBlur(image, (0, 0), _SMOOTH)
    details = smooth - cv2.GaussianBlur(smooth, (0, 0), _DETAIL)
    strength = cv2.GaussianBlur(np.square(details).mean(axis=2), (0, 0), 2 * _DETAIL)
    result: Floats = details / np.sqrt(strength + np.float32(_EVEN**2))[..., None]
    return result


def _correlation(first: Floats, second: Floats, seen: NDArray[np.float32]) -> float:
    weight = seen.sum() * first.shape[2] + 1e-6
    a, b = ((details - (details * seen).sum() / weight) * seen for details in (first, second))
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-3))
