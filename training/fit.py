"""Train a network on tensors in contract form. It knows nothing of files, splits or bundles."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.engines.tensorflow import import_tensorflow
from training.augment import augment
from training.errors import TrainingError
from training.preset import Recipe
from training.progress import Reporter
from training.tensors import Tensors

_WARM_UP = 0.2
_MOMENTUM = 0.9
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training pictures gave; the validation figures are None without validation pictures."""

    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """`seconds` is the time of the training itself: no reading, evaluation of the test set or export."""

    epochs: tuple[Epoch, ...]
    seconds: float
    parameters: int


def fit(
    network: Any, recipe: Recipe, train: Tensors, validation: Tensors | None, *, classes: int, reporter: Reporter
) -> FitResult:
    """Train `network` (a `keras.Model`) in place. Seed Keras first. Raises TrainingError where the loss diverges."""
    tf = import_tensorflow()
    batch_size = len(train.targets) if recipe.batch_size == "full" else min(recipe.batch_size, len(train.targets))
    steps = math.ceil(len(train.targets) / batch_size)
    network.compile(
        optimizer=_optimizer(recipe, total_steps=steps * recipe.epochs),
        loss=_loss(recipe, classes),
        metrics=["accuracy"],
        jit_compile=False,  # on a CPU XLA is slower here, and every last, smaller batch would compile anew
    )
    batches = _batches(tf, train, batch_size, recipe)
    held_out = None
    if validation is not None:
        held_out = tf.data.Dataset.from_tensor_slices((validation.images, validation.targets)).batch(512)
    epochs: list[Epoch] = []
    started = time.monotonic()
    with reporter.task("training", total=steps * recipe.epochs) as advance:
        callback = _progress_callback(recipe.epochs, epochs, advance, reporter)
        network.fit(
            batches, epochs=recipe.epochs, validation_data=held_out, shuffle=False, verbose=0, callbacks=[callback]
        )
    return FitResult(tuple(epochs), time.monotonic() - started, network.count_params())


def _batches(tf: Any, train: Tensors, batch_size: int, recipe: Recipe) -> Any:
    """Return a `tf.data.Dataset` that gathers each shuffled batch from the uint8 array and augments it."""
    images, targets = tf.constant(train.images), tf.constant(train.targets)
    count = len(train.targets)

    def gather(rows: Any) -> tuple[Any, Any]:
        batch = tf.gather(images, rows)
        if recipe.augmentation is not None:
            batch = augment(batch, recipe.augmentation)
        return batch, tf.gather(targets, rows)

    gather = tf.autograph.experimental.do_not_convert(gather)  # plain tensor operations: nothing to convert
    rows = tf.data.Dataset.range(count).shuffle(count, reshuffle_each_iteration=True)
    return rows.batch(batch_size).map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _optimizer(recipe: Recipe, *, total_steps: int) -> Any:
    from keras import optimizers

    rate = recipe.learning_rate if recipe.schedule == "constant" else _one_cycle(recipe.learning_rate, total_steps)
    match recipe.optimizer:
        case "sgd":
            return optimizers.SGD(rate)
        case "momentum":
            return optimizers.SGD(rate, momentum=_MOMENTUM, nesterov=True)
        case "rmsprop":
            return optimizers.RMSprop(rate)
        case "adam":
            return optimizers.Adam(rate)
        case "adamw":
            return optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY)


def _one_cycle(peak: float, total_steps: int) -> Any:
    from keras import optimizers

    climb = max(1, round(total_steps * _WARM_UP))
    return optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 25,
        decay_steps=max(1, total_steps - climb),
        warmup_target=peak,
        warmup_steps=climb,
    )


def _loss(recipe: Recipe, classes: int) -> Any:
    import keras

    if recipe.loss == "crossentropy":
        return keras.losses.SparseCategoricalCrossentropy()

    def mean_squared_error(targets: Any, probabilities: Any) -> Any:
        one_hot = keras.ops.one_hot(keras.ops.reshape(targets, (-1,)), classes)
        return keras.losses.mean_squared_error(one_hot, probabilities)

    return mean_squared_error


def _progress_callback(
    total_epochs: int, epochs: list[Epoch], advance: Callable[[int, str], None], reporter: Reporter
) -> Any:
    import keras

    class ProgressCallback(keras.callbacks.Callback):  # type: ignore[misc]
        _epoch_started = 0.0

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self._epoch_started = time.monotonic()

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            loss, accuracy = (logs or {}).get("loss", np.nan), (logs or {}).get("accuracy", np.nan)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"The loss became {loss} in epoch {len(epochs) + 1}: training diverged. "
                    "Try a lower --learning-rate."
                )
            advance(1, f"epoch {len(epochs) + 1}/{total_epochs}, loss {loss:.4f}, accuracy {accuracy:.2%}")

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            logs = logs or {}
            seconds = time.monotonic() - self._epoch_started
            epochs.append(
                Epoch(logs["loss"], logs["accuracy"], logs.get("val_loss"), logs.get("val_accuracy"), seconds)
            )
            held_out = f", validation accuracy {logs['val_accuracy']:.2%}" if "val_accuracy" in logs else ""
            reporter.say(
                f"epoch {len(epochs)}/{total_epochs}: loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.2%}"
                f"{held_out}, {seconds:.1f} s"
            )

    return ProgressCallback()
