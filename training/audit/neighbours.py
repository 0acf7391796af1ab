"""Propose pairs of pictures that may be near duplicates, from short descriptors. It decides nothing about them.

Every picture is compared with every other, but in matrix products of a few dozen numbers each: 60,000 pictures in
seconds. Two descriptors complement each other. The plain one is for photos, whose framing varies little. The other is
centred on and scaled to the drawing, for drawings on an even ground, which may be anywhere in their frame. Drawings are
also compared rotated, because thin strokes hardly overlap with themselves after a rotation.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec, prepare
from app.system.cores import available_cores
from training.audit.registration import Floats

Thumbnails = NDArray[np.uint8]
Rows = NDArray[np.intp]
Describe = Callable[[Thumbnails], Floats]

_DIMENSIONS = 48
_LARGEST_SIDE = 32
_FITTED_ON = 4_000
_DESCRIBED_AT_ONCE = 1_000  # a descriptor is as large as its thumbnail in float32: 400 MB for 100,000 pictures
_EVEN_BORDER = 10.0  # grey levels of deviation in the outermost ring
_GROUND = 20.0  # grey levels from the border that still count as ground
_DRAWN_SIZE = 0.27  # root mean square distance of what is drawn from its centre, in sides
_TURN_DEGREES = 5.0
_QUERIES_AT_ONCE = 256
_TILE = 2_000
_MOST_TILES = 32  # five bits


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of rows, (M,) each, `first` < `second`, and whether the second is to be mirrored."""

    first: Rows
    second: Rows
    mirrored: NDArray[np.bool_]


def candidates(
    thumbnails: Thumbnails,
    queries: Rows,
    even: NDArray[np.bool_],
    *,
    each: int,
    advance: Callable[[int], None],
) -> Candidates:
    """Return the `each` nearest of all pictures (N, S, S) for every query row, by every descriptor that suits it.

    `even` is the result of `has_even_border`. `advance` is called with the number of searches just done, of `searches`.
    """
    keys = []
    count = len(thumbnails)
    if thumbnails.shape[1] > _LARGEST_SIDE:
        spec = PreprocessingSpec(height=_LARGEST_SIDE, width=_LARGEST_SIDE, colour="grey")
        thumbnails = np.stack([prepare(thumbnail, spec)[..., 0] for thumbnail in thumbnails])
    for asked, mirrored in _asked(thumbnails, queries, even, each, advance):
        for query, near in asked:
            low, high = np.minimum(query, near), np.maximum(query, near)
            keys.append((low * count + high) * 2 + mirrored)
    unique = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.int64)
    pairs, mirrored_flags = np.divmod(unique, 2)
    first, second = np.divmod(pairs, count)
    different = first != second
    return Candidates(first[different], second[different], mirrored_flags[different].astype(np.bool_))


def has_even_border(thumbnails: Thumbnails) -> NDArray[np.bool_]:
    """Say which of thumbnails (N, S, S) are drawings, which have an even ground all around."""
    even: NDArray[np.bool_] = _border(thumbnails).std(axis=1) < _EVEN_BORDER
    return even


def searches(even: NDArray[np.bool_], queries: Rows) -> int:
    """Return how many searches `candidates` makes."""
    drawings = int(even[queries].sum())
    return drawings * (2 + len(_turns(even, queries))) + (len(queries) - drawings) * 3


def _turns(even: NDArray[np.bool_], queries: Rows) -> tuple[float, ...]:
    # If every picture is a query, a rotated pair is found from one of its two pictures, so one direction is enough.
    return (_TURN_DEGREES,) if len(queries) == len(even) else (_TURN_DEGREES, -_TURN_DEGREES)


def _asked(
    thumbnails: Thumbnails, queries: Rows, even: NDArray[np.bool_], each: int, advance: Callable[[int], None]
) -> Iterator[tuple[Iterator[tuple[Rows, Rows]], int]]:
    drawings, photos = queries[even[queries]], queries[~even[queries]]

    def drawn_at(degrees: float) -> Describe:
        return lambda images: _described(_centred(images, degrees))

    upright = drawn_at(0.0)
    plain = _Space(thumbnails, _described) if len(photos) else None
    drawn = _Space(thumbnails, upright)
    mirrored = thumbnails[..., ::-1]
    if plain is not None:
        yield plain.nearest(photos, plain.of(photos), each, advance), 0
        yield plain.nearest(photos, plain.place(mirrored[photos], _described), each, advance), 1
        yield drawn.nearest(photos, drawn.of(photos), each, advance), 0
    if len(drawings):
        yield drawn.nearest(drawings, drawn.of(drawings), each, advance), 0
        for degrees in _turns(even, queries):
            turned = drawn.place(thumbnails[drawings], drawn_at(degrees))
            yield drawn.nearest(drawings, turned, each, advance), 0
        yield drawn.nearest(drawings, drawn.place(mirrored[drawings], upright), each, advance), 1


class _Space:
    """All pictures' descriptors in their main directions, at length 1."""

    def __init__(self, thumbnails: Thumbnails, describe: Describe) -> None:
        sample = describe(thumbnails[:: max(1, len(thumbnails) // _FITTED_ON)])
        self._mean = sample.mean(axis=0)
        self._directions = _main_directions(sample - self._mean)
        self._points = self.place(thumbnails, describe)

    def place(self, thumbnails: Thumbnails, describe: Describe) -> Floats:
        points = np.empty((len(thumbnails), self._directions.shape[1]), np.float32)
        for begin in range(0, len(thumbnails), _DESCRIBED_AT_ONCE):
            part = slice(begin, begin + _DESCRIBED_AT_ONCE)
            points[part] = (describe(thumbnails[part]) - self._mean) @ self._directions
        points /= np.linalg.norm(points, axis=1, keepdims=True) + np.float32(1e-6)
        return points

    def of(self, rows: Rows) -> Floats:
        return self._points[rows]

    def nearest(
        self, rows: Rows, points: Floats, each: int, advance: Callable[[int], None]
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield rows (M,) of queries, and beside them rows of the nearest points: `each` of every query."""
        wanted = min(each, len(self._points))
        tiles = max(1, min(_MOST_TILES, len(self._points) // _TILE))
        width = -(-len(self._points) // tiles)
        columns = np.zeros((self._points.shape[1], tiles * width), np.float32)
        columns[:, : len(self._points)] = self._points.T
        with ThreadPoolExecutor(available_cores(), thread_name_prefix="neighbours") as executor:
            blocks = [slice(begin, begin + _QUERIES_AT_ONCE) for begin in range(0, len(rows), _QUERIES_AT_ONCE)]
            found_of = executor.map(lambda block: _best(points[block], rows[block], columns, width, wanted), blocks)
            for block, near in zip(blocks, found_of, strict=True):
                query = np.repeat(rows[block], near.shape[1])
                found = near.reshape(-1)
                real = found < len(self._points)
                yield query[real], found[real]
                advance(len(near))


def _main_directions(sample: Floats) -> Floats:
    """Return the directions (D, at most `_DIMENSIONS`) in which descriptors (N, D) of mean 0 differ most."""
    if len(sample) < sample.shape[1] // 2:  # quicker for few pictures: 2 ms instead of 0.5 s for 24
        return np.linalg.svd(sample, full_matrices=False)[2][:_DIMENSIONS].T
    _, directions = np.linalg.eigh(sample.T @ sample)
    return directions[:, ::-1][:, :_DIMENSIONS]


def _best(points: Floats, own: Rows, columns: Floats, width: int, wanted: int) -> Rows:
    """Return the columns (Q, wanted), other than each one's `own`, that are nearest to points (Q, D).

    Of columns that lie a multiple of `width` apart, only the nearest is found. Columns come in tiles of `width`, small
    enough for the processor's caches, and only the running maximum over them is kept: sorting all would take far longer
    than the products. The last five bits of each value encode its tile.
    """
    best = np.full((len(points), width), -2, np.float32)
    tile = np.empty((len(points), width), np.float32)
    bits = tile.view(np.int32)
    for index in range(columns.shape[1] // width):
        np.matmul(points, columns[:, index * width : (index + 1) * width], out=tile)
        inside = np.flatnonzero(own // width == index)
        tile[inside, own[inside] - index * width] = -2
        np.bitwise_and(bits, ~(_MOST_TILES - 1), out=bits)
        np.bitwise_or(bits, index, out=bits)
        np.maximum(best, tile, out=best)
    offsets = np.argpartition(best, width - wanted, axis=1)[:, width - wanted :]
    which = np.take_along_axis(best, offsets, axis=1).view(np.int32) & (_MOST_TILES - 1)
    return which.astype(np.intp) * width + offsets


def _described(thumbnails: Thumbnails | Floats) -> Floats:
    side = thumbnails.shape[1]
    smooth = np.empty((len(thumbnails), side * side), np.float32)
    for row, image in enumerate(thumbnails):
        smooth[row] = cv2.GaussianBlur(image.astype(np.float32), (0, 0), side / 28).reshape(-1)
    smooth -= smooth.mean(axis=1, keepdims=True)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + np.float32(1e-3)
    return smooth


def _border(thumbnails: Thumbnails) -> NDArray[np.uint8]:
    return np.concatenate(
        [thumbnails[:, 0], thumbnails[:, -1], thumbnails[:, 1:-1, 0], thumbnails[:, 1:-1, -1]], axis=1
    )


def _centred(thumbnails: Thumbnails, degrees: float) -> Floats:
    """Return pictures shifted, scaled and rotated, so that what differs from their border is centred and of one
    size."""
    side = thumbnails.shape[1]
    steps = np.arange(side, dtype=np.float32)
    drawn = np.abs(thumbnails.astype(np.float32) - np.median(_border(thumbnails), axis=1)[:, None, None]) - _GROUND
    drawn = np.maximum(drawn, 0, dtype=np.float32)
    mass = drawn.sum(axis=(1, 2)) + np.float32(1e-3)
    x = (drawn.sum(axis=1) * steps).sum(axis=1) / mass
    y = (drawn.sum(axis=2) * steps).sum(axis=1) / mass
    spread_x = (drawn.sum(axis=1) * (steps - x[:, None]) ** 2).sum(axis=1) / mass
    spread_y = (drawn.sum(axis=2) * (steps - y[:, None]) ** 2).sum(axis=1) / mass
    zoom = np.clip(np.sqrt(spread_x + spread_y) / (side * _DRAWN_SIZE), 0.3, 2.0)
    cosine, sine = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    middle = (side - 1) / 2
    result = np.empty(thumbnails.shape, np.float32)
    for row, image in enumerate(thumbnails):
        c, s = cosine[row], sine[row]
        matrix = np.array([[c, -s, x[row] - (c - s) * middle], [s, c, y[row] - (s + c) * middle]])
        result[row] = cv2.warpAffine(
            image, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
    return result
