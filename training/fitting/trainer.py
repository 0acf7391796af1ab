"""The step of a training: Keras's own, and a running mean of the weights after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.engines.tensorflow import import_tensorflow
from training.model.preset import Recipe


def build_trainer(network: Any, recipe: Recipe) -> Any:
    """Return a `keras.Model` around `network` whose `fit` trains it, to be compiled by `compile_trainer`.

    Its `averages` are a running mean of the network's weights, moving statistics of batch normalisation among them,
    in the order of `network.weights`; none where the recipe asks for none. Make it in the scope of the network's
    distribution strategy.
    """
    tf = import_tensorflow()
    import keras

    class Trainer(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="trainer")
            self.network = network
            self.averages = [
                keras.Variable(weight, trainable=False, aggregation="only_first_replica", name="average")
                for weight in (network.weights if recipe.weight_averaging else ())
            ]
            self.built = True

        def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
            """Do nothing: `compile_trainer` builds all. Keras would on a batch, and fails on one spread over workers
            (keras#20585)."""

        def call(self, images: Any, training: bool | None = None) -> Any:
            return self.network(images, training=training)

        def train_step(self, data: Any) -> Any:
            logs = super().train_step(data)
            if self.averages:
                # A short memory at first, so that the untrained weights are soon forgotten.
                step = keras.ops.cast(self.optimizer.iterations, "float32")
                decay = keras.ops.minimum(recipe.weight_averaging, (1 + step) / (10 + step))
                for average, weight in zip(self.averages, self.network.weights, strict=True):
                    average.assign(average + (1 - decay) * (weight - average))
            return self._to_be_reduced(logs)

        def test_step(self, data: Any) -> Any:
            return self._to_be_reduced(super().test_step(data))

        def _to_be_reduced(self, logs: Any) -> Any:
            """Give figures an axis where several workers have one each: Keras takes the mean over it (keras#20585)."""
            if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
                return logs
            return {name: keras.ops.reshape(value, (1,)) for name, value in logs.items()}

        @contextmanager
        def averaged(self) -> Iterator[None]:
            """Put the averages, where there are any, in the network's place while the block runs."""
            if not self.averages:
                yield
                return
            own = self.network.get_weights()
            self.take_averages()
            try:
                yield
            finally:
                self.network.set_weights(own)

        def take_averages(self) -> None:
            if self.averages:
                self.network.set_weights([average.numpy() for average in self.averages])

    return Trainer()


def compile_trainer(trainer: Any, recipe: Recipe, optimizer: Any, *, classes: int) -> None:
    """Give the trainer what it trains with, ready for any distribution strategy."""
    tf = import_tensorflow()
    import keras

    losses = {"crossentropy": keras.losses.CategoricalCrossentropy, "mse": keras.losses.MeanSquaredError}
    trainer.compile(
        optimizer=optimizer,
        loss=losses[recipe.loss](),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        # Keras's loop over several steps cannot be built for replicas.
        steps_per_execution=1 if tf.distribute.has_strategy() else recipe.steps_per_execution,
        jit_compile=False,  # on a CPU XLA is slower here, and every last, smaller batch would compile anew
    )
    # Built here, in the strategy's scope, instead of on the first batch.
    some = keras.ops.one_hot([0], classes)
    trainer.compute_loss(y=some, y_pred=some)
    trainer.compute_metrics(None, some, some)
    trainer.optimizer.build(trainer.network.trainable_variables)
