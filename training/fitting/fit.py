"""Train a network on tensors in contract form. It knows nothing of files, splits or bundles."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.tensors import Tensors
from training.errors import CheckpointError, DivergedError, OptionError
from training.fitting.batches import Batches, held_out_batches, open_stopwatch
from training.fitting.checkpoint import Arrays, Checkpoint
from training.fitting.history import Epoch
from training.fitting.optimizers import optimizer_of
from training.fitting.precision import computing_in, precision_here
from training.fitting.trainable_model import TrainableModel
from training.model.preset import Recipe
from training.progress import Advance, Reporter
from training.tensorflow import keras, tf


@dataclass(frozen=True)
class FitResult:
    """`seconds` is the time of the training itself: no reading, evaluation of the test set or export.

    `best_epoch`, counted from 1, is the epoch whose weights the network has: the last one by default, and 0 if it has
    the weights from before the first epoch. `head_accuracy` is the accuracy on the validation pictures before the first
    epoch, if the network began with a softmax regression on its backbone's features.
    """

    epochs: tuple[Epoch, ...]
    seconds: float
    parameters: int
    best_epoch: int
    precision: str
    head_accuracy: float | None = None


def fit(
    network: keras.Model,
    recipe: Recipe,
    train: Tensors,
    validation: Tensors | None,
    *,
    classes: int,
    seed: int,
    reporter: Reporter,
    start: Checkpoint | None = None,
    after_epoch: Callable[[Checkpoint], None] | None = None,
) -> FitResult:
    """Train `network` (uint8 to probabilities) in place. Seed Keras first.

    It resumes from `start`, and passes a checkpoint to `after_epoch` after each epoch. A distribution strategy must be
    in scope. Raises OptionError for a recipe that this network or data cannot follow, DivergedError if the loss
    diverges, CheckpointError for a `start` of another network.
    """
    if not recipe.epochs:
        return FitResult((), 0.0, network.count_params(), 0, "float32")
    training = _Training(network, recipe, train, validation, classes=classes, seed=seed)
    if start is not None:
        training.go_on_from(start)
    precision = precision_here(recipe.precision)
    steps = training.batches.steps * (recipe.epochs - len(training.epochs))
    with computing_in(network, precision), reporter.task("training", total=steps) as advance:
        while not training.is_done:
            training.run_epoch(advance)
            if after_epoch is not None:
                after_epoch(training.checkpoint())
            reporter.say(training.line())
    training.finish()
    return FitResult(tuple(training.epochs), training.seconds(), network.count_params(), training.best_epoch, precision)


class _Training:
    """The state of one training between epochs, and the step to the next epoch."""

    def __init__(
        self,
        network: keras.Model,
        recipe: Recipe,
        train: Tensors,
        validation: Tensors | None,
        *,
        classes: int,
        seed: int,
    ) -> None:
        if recipe.early_stopping and validation is None:
            raise OptionError("--early-stopping needs validation pictures. Give --validation a share, such as 0.1.")
        self._network = network
        self._recipe = recipe
        self._classes = classes
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.batches = Batches(train, recipe, classes=classes, seed=seed, replicas=replicas)
        self._held_out = None
        if validation is not None:
            self._held_out = held_out_batches(validation, classes=classes, replicas=replicas)
        self._stopwatch = open_stopwatch(replicas=replicas)
        self._model = TrainableModel(network, recipe)
        self.epochs: list[Epoch] = []
        self._spent = 0.0
        self._started = time.monotonic()
        self._best: tuple[Epoch, list[NDArray[np.generic]]] | None = None

    @property
    def best_epoch(self) -> int:
        """The number, from 1, of the epoch whose weights `finish` takes."""
        return len(self.epochs) if self._best is None else 1 + self.epochs.index(self._best[0])

    @property
    def is_done(self) -> bool:
        patience = self._recipe.early_stopping
        is_stalled = patience > 0 and len(self.epochs) - self.best_epoch >= patience
        return is_stalled or len(self.epochs) >= self._recipe.epochs

    def run_epoch(self, advance: Advance) -> None:
        """Train for one epoch, and call `advance` after each step. Raises DivergedError if the loss diverges."""
        number = len(self.epochs)
        if not number:
            self._begin()
        waited = self._waited()
        started = time.monotonic()
        logs = self._model.fit(
            self.batches.epoch(number, stopwatch=self._stopwatch),
            initial_epoch=number,
            epochs=number + 1,
            shuffle=False,  # the batches are already shuffled
            verbose=0,
            callbacks=[_StepCallback(f"epoch {number + 1}/{self._recipe.epochs}", self.batches.steps, advance)],
        ).history
        seconds = time.monotonic() - started
        with self._model.averaged():
            found = {} if self._held_out is None else self._model.evaluate(self._held_out, verbose=0, return_dict=True)
            epoch = Epoch(
                loss=logs["loss"][0],
                accuracy=logs["accuracy"][0],
                validation_loss=found.get("loss"),
                validation_accuracy=found.get("accuracy"),
                seconds=seconds,
                learning_rate=_number(self._model.optimizer.learning_rate),
                images_per_second=self.batches.pictures / seconds,
                input_wait=None if waited is None else min(1.0, ((self._waited() or 0.0) - waited) / seconds),
            )
            self.epochs.append(epoch)
            if self._recipe.early_stopping and self._is_best(epoch):
                self._best = epoch, self._network.get_weights()

    def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of the current state."""
        arrays = {
            "network": [variable.numpy() for variable in self._network.variables],
            "averages": [average.numpy() for average in self._model.averages],
            "optimizer": [variable.numpy() for variable in self._model.optimizer.variables],
            "best": [] if self._best is None else self._best[1],
        }
        return Checkpoint(tuple(self.epochs), self.seconds(), None if self._best is None else self.best_epoch, arrays)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Restore the state of `checkpoint`. Raises CheckpointError if it is another network's."""
        self.epochs = list(checkpoint.epochs)
        self._spent = checkpoint.seconds
        if checkpoint.best_epoch is not None:
            self._best = self.epochs[checkpoint.best_epoch - 1], checkpoint.arrays["best"]
        _assign(self._network.variables, checkpoint.arrays, "network")
        _assign(self._model.averages, checkpoint.arrays, "averages")
        if self.epochs:
            self._begin()
            _assign(self._model.optimizer.variables, checkpoint.arrays, "optimizer")

    def seconds(self) -> float:
        """Return the training time, including that of the runs that this one resumes."""
        return self._spent + time.monotonic() - self._started

    def finish(self) -> None:
        """Set the network's weights to the training's result."""
        if self._best is not None:
            self._network.set_weights(self._best[1])
        else:
            self._model.take_averages()

    def line(self) -> str:
        """Describe the last epoch in one line."""
        epoch = self.epochs[-1]
        held_out = "" if epoch.validation_accuracy is None else f", validation accuracy {epoch.validation_accuracy:.2%}"
        return (
            f"epoch {len(self.epochs)}/{self._recipe.epochs}: loss {epoch.loss:.4f}, "
            f"accuracy {epoch.accuracy:.2%}{held_out}, {epoch.seconds:.1f} s"
        )

    def _waited(self) -> float | None:
        return None if self._stopwatch is None else self._stopwatch.seconds

    def _begin(self) -> None:
        """Start the optimizer and its schedule."""
        optimizer = optimizer_of(
            self._recipe, self._network.trainable_variables, steps=self.batches.steps * self._recipe.epochs
        )
        self._model.prepare(optimizer, classes=self._classes)
        self._model.make_train_function(force=True)

    def _is_best(self, epoch: Epoch) -> bool:
        return self._best is None or _loss_of(epoch) < _loss_of(self._best[0])


def _assign(variables: list[keras.Variable], arrays: Arrays, name: str) -> None:
    found = arrays.get(name, [])
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in found]:
        raise CheckpointError("The checkpoint is of another network. Start again without --resume.")
    for variable, array in zip(variables, found, strict=True):
        variable.assign(array)


def _number(value: keras.Variable | tf.Tensor) -> float:
    """Return the value of a Keras variable or a tensor, under any distribution strategy."""
    return float(keras.ops.convert_to_tensor(value).numpy())


def _loss_of(epoch: Epoch) -> float:
    return float("inf") if epoch.validation_loss is None else epoch.validation_loss


class _StepCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls `advance` for every step, and ends a training that diverges."""

    def __init__(self, title: str, steps: int, advance: Advance) -> None:
        super().__init__()
        self._title, self._steps, self._advance = title, steps, advance
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Several workers report an array of one value.
        loss, accuracy = (float(np.mean((logs or {}).get(name, np.nan))) for name in ("loss", "accuracy"))
        if not np.isfinite(loss):
            raise DivergedError(
                f"The loss became {loss} in {self._title}: training diverged. Try a lower --learning-rate."
            )
        done = min(batch + 1, self._steps)  # Keras counts the last execution as a whole one
        self._advance(done - self._done, f"{self._title}, loss {loss:.4f}, accuracy {accuracy:.2%}")
        self._done = done
