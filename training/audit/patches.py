"""Describe small pictures by patches and their places: features with which a linear model can separate classes.

Filters are learned from the pictures themselves without labels, by spherical k-means on whitened patches (Coates and Ng
2012), so that wrong labels cannot mislead them. It knows nothing of classes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from app.system.cores import available_cores
from training.audit.neighbours import Thumbnails
from training.audit.registration import Floats

_PATCH = 0.21  # of the side
_SEEN_FOR_FILTERS, _PATCHES = 3_000, 40_000
_ROUNDS = 8
_FLAT = 100.0  # grey levels squared: patches with less variance count as even
_DULL = 0.1  # share of that variance below which a patch teaches nothing
_FLOOR = 0.5  # responses below are noise
_AT_ONCE = 50
_SCALED_ON = 2_000


def patch_features(
    thumbnails: Thumbnails, *, filters: int, grid: int, seed: int, advance: Callable[[int], None]
) -> NDArray[np.float16]:
    """Return features (N, 2 · filters · grid²) of pictures (N, S, S), each of mean 0 and about the same spread."""
    random = np.random.default_rng(seed)
    width = max(5, round(thumbnails.shape[1] * _PATCH))
    weights, offset = _learn(thumbnails, width, filters, random)

    def part(begin: int) -> Floats:
        return _respond(thumbnails[begin : begin + _AT_ONCE], width, weights, offset, grid)

    features = np.empty((len(thumbnails), 2 * filters * grid * grid), np.float16)
    with (
        threadpool_limits(limits=1, user_api="blas"),  # the threads here are our own
        ThreadPoolExecutor(available_cores(), thread_name_prefix="patches") as executor,
    ):
        sample = random.permutation(len(thumbnails))[:_SCALED_ON]
        seen = np.concatenate(
            [_respond(thumbnails[sample[i : i + _AT_ONCE]], width, weights, offset, grid)
             for i in range(0, len(sample), _AT_ONCE)]
        )  # fmt: skip
        mean, spread = seen.mean(axis=0), seen.std(axis=0)
        spread += np.float32(0.05) * spread.mean() + np.float32(1e-6)
        starts = range(0, len(thumbnails), _AT_ONCE)
        for begin, found in zip(starts, executor.map(part, starts), strict=True):
            features[begin : begin + len(found)] = (found - mean) / spread
            advance(len(found))
    return features


def _learn(thumbnails: Thumbnails, width: int, count: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    chosen = thumbnails[random.permutation(len(thumbnails))[:_SEEN_FOR_FILTERS]]
    places = random.integers(0, thumbnails.shape[1] - width + 1, (2, max(1, 4 * _PATCHES // len(chosen)), len(chosen)))
    patches = np.concatenate(
        [
            np.stack([image[y : y + width, x : x + width] for image, y, x in zip(chosen, rows, columns, strict=True)])
            for rows, columns in zip(*places, strict=True)
        ]
    ).reshape(-1, width * width)
    normal = _normalised(patches.astype(np.float32))
    vivid = normal[(normal * normal).mean(axis=1) > _DULL]
    normal = (vivid if len(vivid) > count else normal)[:_PATCHES]
    mean = normal.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(normal.T))
    whitening = ((vectors / np.sqrt(np.maximum(values, 0) + 0.1)) @ vectors.T).astype(np.float32)
    white = (normal - mean) @ whitening
    centres = _unit(white[random.integers(0, len(white), count)])
    for _ in range(_ROUNDS):
        likeness = white @ centres.T
        nearest = np.abs(likeness).argmax(axis=1)
        strength = likeness[np.arange(len(white)), nearest]
        centres = np.zeros_like(centres)
        np.add.at(centres, nearest, white * strength[:, None])
        unused = np.flatnonzero(np.abs(centres).sum(axis=1) == 0)
        centres[unused] = white[random.integers(0, len(white), len(unused))]
        centres = _unit(centres)
    weights: Floats = whitening @ centres.T
    return weights, (mean @ weights).astype(np.float32)


def _respond(thumbnails: Thumbnails, width: int, weights: Floats, offset: Floats, grid: int) -> Floats:
    """Return how strongly each filter, and its negative, responds in each field of a grid, (N, 2 · filters · grid²)."""
    windows = np.lib.stride_tricks.sliding_window_view(thumbnails, (width, width), axis=(1, 2))
    count, rows = windows.shape[:2]
    responses = _normalised(windows.reshape(-1, width * width).astype(np.float32)) @ weights - offset
    responses = responses.reshape(count, rows, rows, -1)
    edges = np.linspace(0, rows, grid + 1).round().astype(int)[:-1]
    found = []
    for sign in (1, -1):
        above = np.maximum(sign * responses - np.float32(_FLOOR), 0)
        pooled = np.add.reduceat(np.add.reduceat(above, edges, axis=1), edges, axis=2)
        found.append(np.sqrt(pooled).reshape(count, -1))
    return np.concatenate(found, axis=1)


def _normalised(patches: Floats) -> Floats:
    patches = patches - patches.mean(axis=1, keepdims=True)
    result: Floats = patches / np.sqrt((patches * patches).mean(axis=1, keepdims=True) + np.float32(_FLAT))
    return result


def _unit(vectors: Floats) -> Floats:
    result: Floats = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + np.float32(1e-6))
    return result
