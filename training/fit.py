"""Train a network on tensors in contract form. It knows nothing of files, splits or bundles."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.backbone import NAME, let_learn
from training.batches import Batches, Stopwatch, held_out_batches
from training.errors import OptionError, TrainingError
from training.optimizers import optimizer_of
from training.precision import computing_in, precision_here
from training.preset import Recipe
from training.progress import Advance, Reporter
from training.tensors import Tensors
from training.trainer import build_trainer, compile_trainer


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training pictures gave; the validation figures are None without validation pictures.

    `learning_rate` is the last step's. `seconds` is the training's alone, `input_wait` the share of it in which the
    step waited for pictures; None where several replicas are fed.
    """

    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    learning_rate: float
    images_per_second: float
    input_wait: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """`seconds` is the time of the training itself: no reading, evaluation of the test set or export.

    `best_epoch`, counted from 1, is the one whose weights the network has; the last where nothing else was asked.
    """

    epochs: tuple[Epoch, ...]
    seconds: float
    parameters: int
    best_epoch: int
    precision: str


def fit(
    network: Any,
    recipe: Recipe,
    train: Tensors,
    validation: Tensors | None,
    *,
    classes: int,
    seed: int,
    reporter: Reporter,
) -> FitResult:
    """Train `network` (a `keras.Model`, uint8 to probabilities) in place. Seed Keras first.

    Raises OptionError for a recipe that this network or data cannot follow, TrainingError where the loss diverges.
    """
    training = _Training(network, recipe, train, validation, classes=classes, seed=seed)
    started = time.monotonic()
    precision = precision_here(recipe.precision)
    with (
        computing_in(network, precision),
        reporter.task("training", total=training.batches.steps * recipe.total_epochs) as advance,
    ):
        while not training.is_done:
            training.run_epoch(advance)
            reporter.say(training.line())
    training.finish()
    return FitResult(
        tuple(training.epochs), time.monotonic() - started, network.count_params(), training.best_epoch, precision
    )


class _Training:
    """The state of one training between epochs, and how it goes on by one."""

    def __init__(
        self, network: Any, recipe: Recipe, train: Tensors, validation: Tensors | None, *, classes: int, seed: int
    ) -> None:
        if recipe.early_stopping and validation is None:
            raise OptionError("--early-stopping needs validation pictures. Give --validation a share, as in 0.1.")
        self._network = network
        self._recipe = recipe
        self._held_out = None if validation is None else held_out_batches(validation, classes=classes)
        self._trainer = build_trainer(network, recipe)
        self.batches = Batches(train, recipe, classes=classes, seed=seed)
        self.epochs: list[Epoch] = []
        self._best: tuple[Epoch, list[NDArray[np.generic]]] | None = None

    @property
    def best_epoch(self) -> int:
        """The number, from 1, of the epoch whose weights are taken in the end."""
        return len(self.epochs) if self._best is None else 1 + self.epochs.index(self._best[0])

    @property
    def is_done(self) -> bool:
        patience = self._recipe.early_stopping
        is_stalled = patience > 0 and len(self.epochs) - self.best_epoch >= patience
        return is_stalled or len(self.epochs) >= self._recipe.total_epochs

    def run_epoch(self, advance: Advance) -> None:
        """Train for one epoch, and tell `advance` after each step. Raises TrainingError where the loss diverges."""
        number = len(self.epochs)
        if number in (0, self._recipe.epochs):
            self._begin_phase()
        stopwatch = Stopwatch()
        started = time.monotonic()
        logs = self._trainer.fit(
            self.batches.epoch(number, stopwatch=stopwatch),
            initial_epoch=number,
            epochs=number + 1,
            shuffle=False,  # the batches come in their order
            verbose=0,
            callbacks=[_step_callback(f"epoch {number + 1}/{self._recipe.total_epochs}", advance)],
        ).history
        seconds = time.monotonic() - started
        with self._trainer.averaged():
            found = (
                {} if self._held_out is None else self._trainer.evaluate(self._held_out, verbose=0, return_dict=True)
            )
            epoch = Epoch(
                loss=logs["loss"][0],
                accuracy=logs["accuracy"][0],
                validation_loss=found.get("loss"),
                validation_accuracy=found.get("accuracy"),
                seconds=seconds,
                learning_rate=float(self._trainer.optimizer.learning_rate),
                images_per_second=self.batches.pictures / seconds,
                input_wait=min(1.0, stopwatch.seconds / seconds),
            )
            self.epochs.append(epoch)
            if self._recipe.early_stopping and self._is_best(epoch):
                self._best = epoch, self._network.get_weights()

    def finish(self) -> None:
        """Give the network the weights that the training came to."""
        if self._best is not None:
            self._network.set_weights(self._best[1])
        else:
            self._trainer.take_averages()

    def line(self) -> str:
        """Return what there is to say of the epoch just done."""
        epoch = self.epochs[-1]
        held_out = "" if epoch.validation_accuracy is None else f", validation accuracy {epoch.validation_accuracy:.2%}"
        return (
            f"epoch {len(self.epochs)}/{self._recipe.total_epochs}: loss {epoch.loss:.4f}, "
            f"accuracy {epoch.accuracy:.2%}{held_out}, {epoch.seconds:.1f} s"
        )

    def _begin_phase(self) -> None:
        """Freeze or free the backbone, and start its optimizer and schedule."""
        recipe, fine_tune = self._recipe, self._recipe.fine_tune
        epochs, learning_rate = recipe.epochs, recipe.learning_rate
        if fine_tune is not None:
            is_fine = len(self.epochs) >= recipe.epochs
            let_learn(self._backbone(), is_fine)
            if is_fine:
                epochs, learning_rate = fine_tune.epochs, fine_tune.learning_rate
        optimizer = optimizer_of(
            recipe,
            self._network.trainable_variables,
            learning_rate=learning_rate,
            steps=self.batches.steps * epochs,
        )
        compile_trainer(self._trainer, recipe, optimizer)
        self._trainer.make_train_function(force=True)

    def _backbone(self) -> Any:
        try:
            return self._network.get_layer(NAME)
        except ValueError as exc:
            raise OptionError("This preset has no backbone that could be frozen first and fine-tuned then.") from exc

    def _is_best(self, epoch: Epoch) -> bool:
        return self._best is None or _loss_of(epoch) < _loss_of(self._best[0])


def _loss_of(epoch: Epoch) -> float:
    return float("inf") if epoch.validation_loss is None else epoch.validation_loss


def _step_callback(title: str, advance: Advance) -> Any:
    import keras

    class StepCallback(keras.callbacks.Callback):  # type: ignore[misc]
        _done = 0

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            loss, accuracy = (logs or {}).get("loss", np.nan), (logs or {}).get("accuracy", np.nan)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"The loss became {loss} in {title}: training diverged. Try a lower --learning-rate."
                )
            advance(batch + 1 - self._done, f"{title}, loss {loss:.4f}, accuracy {accuracy:.2%}")
            self._done = batch + 1

    return StepCallback()
