"""Make the training batches: the choice, order and augmentation of pictures.

All randomness depends only on the seed and the number of the epoch, so a resumed run sees the same batches as an
uninterrupted one.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.system.cores import available_cores
from training.data.tensors import Tensors
from training.errors import OptionError
from training.fitting.augment import augment, augment_maps
from training.model.preset import Recipe
from training.tensorflow import tf

_HELD_OUT_BATCH = 512
_HELD_OUT_BYTES = 8 << 20
"""Bytes of the pictures of a batch: a network's arrays for them are some fifty times as large."""
_AHEAD = 2
"""Batches to prefetch, besides those that are being made."""
_ORDER, _CHANGES, _MIXUP = range(3)


class Batches:
    """An epoch's batches: images (B, H, W, C), uint8 pictures or float32 maps of a network's first layers; targets
    float32 (B, K); and any class weights (B,)."""

    def __init__(self, train: Tensors, recipe: Recipe, *, classes: int, seed: int, replicas: int = 1) -> None:
        """Raises OptionError if `replicas` cannot share a batch evenly."""
        self._recipe = recipe
        self._classes = classes
        self._seed = seed
        count = len(train.targets)
        self.size = count if recipe.batch_size == "full" else min(recipe.batch_size, count)
        self.steps = count // self.size if recipe.drop_remainder else math.ceil(count / self.size)
        # Every replica needs the same share of every batch, or their mean is not the batch's.
        if self.size % replicas and self.size < count:
            raise OptionError(f"--batch-size {self.size} cannot be shared evenly by {replicas} replicas.")
        self.pictures = _shared(min(count, self.steps * self.size), replicas)  # of one epoch
        if not self.pictures:
            raise OptionError(f"{count} pictures are too few for {replicas} replicas.")
        self.steps = math.ceil(self.pictures / self.size)
        self._picture = _picture_source(train)
        self._targets = tf.constant(train.targets)
        self._weights = None
        if recipe.class_weights == "balanced":
            self._weights = tf.constant(balanced_weights(train.targets, classes))

    def epoch(self, number: int, *, stopwatch: "Stopwatch | None" = None) -> tf.data.Dataset:
        """Return the batches of epoch `number`, counted from 0; `stopwatch` times the waiting for them."""
        is_changed = number < round(self._recipe.augment_until * self._recipe.epochs)
        key = tf.random.fold_in(tf.constant([self._seed, number], tf.int32), _ORDER)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(self._targets), dtype=tf.int64), seed=key)
        rows = tf.data.Dataset.from_tensor_slices(order[: self.pictures])
        steps = rows.batch(self.size, drop_remainder=self._recipe.drop_remainder).enumerate()

        def batch(step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
            seed = tf.random.fold_in(tf.constant([self._seed, number], tf.int32), 1 + tf.cast(step, tf.int32))
            return self._batch(rows, seed, is_changed=is_changed)

        batch = tf.autograph.experimental.do_not_convert(batch)  # plain tensor operations need no conversion
        batches = _made_ahead(steps, batch)
        return _with_options(batches if stopwatch is None else stopwatch.around(batches))

    def _batch(self, rows: tf.Tensor, seed: tf.Tensor, *, is_changed: bool) -> tuple[tf.Tensor, ...]:
        recipe = self._recipe
        images, classes = self._picture(rows), tf.gather(self._targets, rows)
        targets = tf.one_hot(classes, self._classes)
        weights = [] if self._weights is None else [tf.gather(self._weights, classes)]
        if is_changed and recipe.augmentation is not None:
            change = augment if images.dtype == tf.uint8 else augment_maps
            images = change(images, recipe.augmentation, seed=tf.random.fold_in(seed, _CHANGES))
        if is_changed and recipe.mixup:
            images, targets, *weights = _mix(recipe.mixup, tf.random.fold_in(seed, _MIXUP), images, targets, *weights)
        if recipe.label_smoothing:
            targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / self._classes
        return (images, targets, *weights)


def held_out_batches(held_out: Tensors, *, classes: int, replicas: int = 1) -> tf.data.Dataset:
    """Return batches of all pictures in order, without augmentation: uint8 (B, H, W, C), targets float32 (B, K).

    With several replicas, the rest that they cannot share evenly is left out.
    """
    picture, targets = _picture_source(held_out), tf.constant(held_out.targets)
    size = max(replicas, min(_HELD_OUT_BATCH, _HELD_OUT_BYTES // max(1, held_out.images[0].nbytes)))
    rows = tf.data.Dataset.range(_shared(len(held_out.targets), replicas)).batch(_shared(size, replicas))

    def batch(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return picture(rows), tf.one_hot(tf.gather(targets, rows), classes)

    batch = tf.autograph.experimental.do_not_convert(batch)
    return _with_options(_made_ahead(rows, batch))


def _shared(count: int, replicas: int) -> int:
    return count - count % replicas


def balanced_weights(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return a weight for each class, so that all count alike and the mean over pictures is 1 (King & Zeng 2001)."""
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


class Stopwatch:
    """Adds up how long the steps waited for batches."""

    def __init__(self) -> None:
        self._waited = tf.Variable(0.0, dtype="float64", trainable=False)

    @property
    def seconds(self) -> float:
        return float(self._waited.numpy())

    def around(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return the same batches, with operations before and after each that time the wait for it."""

        def asking(_: tf.Tensor) -> tf.Tensor:
            return tf.timestamp()

        def answered(asked: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            with tf.control_dependencies(batch):
                waited = self._waited.assign_add(tf.timestamp() - asked)
            with tf.control_dependencies([waited]):
                return tuple(tf.identity(part) for part in batch)

        as_written = tf.autograph.experimental.do_not_convert
        asks = tf.data.Dataset.counter().map(as_written(asking))
        return tf.data.Dataset.zip(asks, batches).map(as_written(answered))


def open_stopwatch(*, replicas: int) -> Stopwatch | None:
    """Return None if the waiting cannot be timed: with several replicas, or if TensorFlow is deterministic, because it
    then rejects reading the clock."""
    try:
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return None
    return Stopwatch() if replicas == 1 else None


def _made_ahead(rows: tf.data.Dataset, batch: Callable[..., tuple[tf.Tensor, ...]]) -> tf.data.Dataset:
    return rows.map(batch, num_parallel_calls=available_cores()).prefetch(_AHEAD)


def _with_options(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # TensorFlow's autotuning sleeps for longer and longer, and sometimes the end of an epoch waits until it wakes: up
    # to as long as the epoch took.
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False  # it would run the stopwatch before the step asks
    # Each worker of a strategy makes all batches and takes its share of each.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


def _picture_source(tensors: Tensors) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from rows (B,) to images, uint8 or float32. A mapped file stays on disk; an array is copied
    once."""
    images = tensors.images
    in_memory = None if isinstance(images, np.memmap) else tf.constant(images)

    def read(rows: tf.Tensor) -> tf.Tensor:
        if in_memory is None:
            found = tf.numpy_function(lambda rows: images[rows], [rows], images.dtype, stateful=False)
            found.set_shape([None, *images.shape[1:]])
        else:
            found = tf.gather(in_memory, rows)
        return found if found.dtype == tf.uint8 else tf.cast(found, tf.float32)

    return read


def _mix(alpha: float, seed: tf.Tensor, images: tf.Tensor, *others: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Blend every picture with that of the reversed batch (mixup), and the targets and weights in the same ratio."""
    count = tf.shape(images)[0]
    first, second = (tf.random.stateless_gamma([count], part, alpha) for part in tf.unstack(tf.random.split(seed, 2)))
    share = first / tf.maximum(first + second, 1e-12)  # two Gamma draws make one of Beta(α, α)
    share = tf.maximum(share, 1 - share)

    def blend(values: tf.Tensor) -> tf.Tensor:
        own = tf.reshape(share, [-1, *[1] * (len(values.shape) - 1)])
        return own * values + (1 - own) * tf.reverse(values, [0])

    blended = blend(tf.cast(images, tf.float32))
    if images.dtype == tf.uint8:
        blended = tf.cast(tf.round(blended), tf.uint8)
    return (blended, *(blend(values) for values in others))
