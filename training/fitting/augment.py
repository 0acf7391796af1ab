"""Data augmentation of a batch of training pictures in contract form. The service does not use it."""

import math
from typing import Any

from training.fitting.elastic import resample, smooth_displacements
from training.fitting.photographic import mirror, photograph
from training.model.preset import Augmentation
from training.tensorflow import tf

# Levels out of 255 for the photographed-paper look: ground up to a third of white after the polarity step, strokes
# lighter than it by at least this much, illumination falling by this much from one side to the other, and sensor noise.
_GROUND = 90.0
_LEAST_CONTRAST = 90.0
_FALL_OFF = 40.0
_NOISE = 8.0


def augment(images: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor) -> tf.Tensor:
    """Return augmented copies: uint8 tensor (N, H, W, C) → uint8 tensor of the same shape.

    `seed` is an integer tensor (2,): equal seeds give equal changes, regardless of earlier calls.
    """
    images = tf.cast(images, tf.float32)
    images = _warp(images, augmentation, tf.random.fold_in(seed, 0))
    if augmentation.paper:
        images = _put_on_paper(images, augmentation.paper, tf.random.fold_in(seed, 1))
    images = photograph(images, augmentation, seed=tf.random.fold_in(seed, 2))
    return tf.cast(tf.clip_by_value(tf.round(images), 0.0, 255.0), tf.uint8)


def augment_maps(maps: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor) -> tf.Tensor:
    """Return augmented copies of feature maps, float32 (N, H, W, C), that a network's first layers made of pictures.

    Mirroring is the only augmentation of maps.
    """
    return mirror(maps, seed) if augmentation.mirror else maps


def _warp(images: tf.Tensor, augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Rotate, shear, zoom, shift and elastically distort each picture, with one bilinear resampling."""
    shape = tf.shape(images)
    count, height, width = shape[0], tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
    seeds = iter(tf.unstack(tf.random.split(seed, 7)))

    def draw(limit: float) -> tf.Tensor:
        return tf.random.stateless_uniform([count], next(seeds), -limit, limit)

    angle = draw(math.radians(augmentation.rotation_degrees))
    shear = tf.tan(draw(math.radians(augmentation.shear_degrees)))
    zoom_x, zoom_y = 1 + draw(augmentation.zoom), 1 + draw(augmentation.zoom)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Rows of the matrix that maps an output position to its input position, about the centre.
    a, b = cosine * zoom_x, (shear * cosine - sine) * zoom_y
    c, d = sine * zoom_x, (shear * sine + cosine) * zoom_y
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    shift_x = centre_x - a * centre_x - b * centre_y + draw(augmentation.shift) * width
    shift_y = centre_y - c * centre_x - d * centre_y + draw(augmentation.shift) * height
    if augmentation.elastic:
        rows, columns = images.shape[1:3]
        limit = augmentation.elastic * columns
        bend = smooth_displacements(count, rows, columns, limit=limit, seed=next(seeds))
        across, down = tf.range(width)[None, None, :], tf.range(height)[None, :, None]
        a, b, shift_x, c, d, shift_y = (value[:, None, None] for value in (a, b, shift_x, c, d, shift_y))
        x, y = a * across + b * down + shift_x + bend[:, 0], c * across + d * down + shift_y + bend[:, 1]
        if augmentation.edge == "nearest":
            x, y = tf.clip_by_value(x, 0.0, width - 1), tf.clip_by_value(y, 0.0, height - 1)
        return resample(images, x, y)
    zeros = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, shift_x, c, d, shift_y, zeros, zeros], axis=1),
        output_shape=shape[1:3],
        interpolation="BILINEAR",
        fill_mode="CONSTANT" if augmentation.edge == "black" else "NEAREST",
        fill_value=0.0,
    )


def _put_on_paper(images: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(images)
    count = shape[0]
    seeds = iter(tf.unstack(tf.random.split(seed, 7)))

    def draw(low: Any, high: Any) -> tf.Tensor:
        return low + (high - low) * tf.random.stateless_uniform([count, 1, 1, 1], next(seeds))

    ground = draw(0.0, _GROUND)
    stroke = draw(ground + _LEAST_CONTRAST, 255.0)
    across = tf.reshape(tf.linspace(-0.5, 0.5, shape[2]), [1, 1, -1, 1])
    down = tf.reshape(tf.linspace(-0.5, 0.5, shape[1]), [1, -1, 1, 1])
    light = draw(-_FALL_OFF, _FALL_OFF) * across + draw(-_FALL_OFF, _FALL_OFF) * down
    noise = draw(0.0, _NOISE) * tf.random.stateless_normal(shape, next(seeds))
    on_paper = ground + (stroke - ground) * images / 255.0 + light + noise
    return tf.where(draw(0.0, 1.0) < share, on_paper, images)
