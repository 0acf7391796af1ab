"""Elastic distortions, and resampling. This module knows nothing of labels or recipes."""

import numpy as np
from numpy.typing import NDArray

from training.tensorflow import tf

_KNOTS = 6


def smooth_displacements(count: int, height: int, width: int, *, limit: float, seed: tf.Tensor) -> tf.Tensor:
    """Return float32 (count, 2, height, width): each pixel's displacement in x and y, at most `limit` pixels.

    It is a cubic B-spline with 6 × 6 random knots (Simard et al. 2003 blur a field of noise instead).
    """
    knots = tf.random.stateless_uniform([count, 2, _KNOTS, _KNOTS], seed, -limit, limit)
    return tf.matmul(_spline(height), tf.matmul(knots, _spline(width), transpose_b=True))


def resample(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Sample `images`, float32 (N, H, W, C), at `x` and `y`, both (N, H, W), bilinearly; black outside."""
    count, height, width = (tf.shape(images)[axis] for axis in range(3))
    x = tf.clip_by_value(x, -1.0, tf.cast(width, tf.float32))
    y = tf.clip_by_value(y, -1.0, tf.cast(height, tf.float32))
    left, above = tf.floor(x), tf.floor(y)
    right_share, lower_share = (x - left)[..., None], (y - above)[..., None]
    row = width + 3  # one black column to the left, two to the right: every neighbour of a clipped position exists
    padded = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]])
    pixels = tf.reshape(padded, [-1, images.shape[-1]])
    first = tf.range(count)[:, None, None] * (height + 3) * row
    first += tf.cast(above + 1, tf.int32) * row + tf.cast(left + 1, tf.int32)
    upper_left, upper_right = tf.gather(pixels, first), tf.gather(pixels, first + 1)
    lower_left, lower_right = tf.gather(pixels, first + row), tf.gather(pixels, first + row + 1)
    upper = upper_left + right_share * (upper_right - upper_left)
    lower = lower_left + right_share * (lower_right - lower_left)
    return upper + lower_share * (lower - upper)


def _spline(length: int) -> NDArray[np.float32]:
    """Return (length, knots): the weight of each knot at each pixel, rows summing to 1."""
    distance = np.abs(np.linspace(0, _KNOTS - 1, length)[:, None] - np.arange(_KNOTS))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
