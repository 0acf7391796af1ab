"""The Keras model for training: Keras's step, followed by an update of the weights' running mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from training.model.preset import Recipe
from training.tensorflow import keras, tf

_LOSSES = {"crossentropy": keras.losses.CategoricalCrossentropy, "mse": keras.losses.MeanSquaredError}


class TrainableModel(keras.Model):  # type: ignore[misc]
    """A model around `network` whose `fit` trains it, once it is prepared.

    Its `averages` are a running mean of the network's weights, including the moving statistics of batch normalisation,
    in the order of `network.weights`; none if the recipe asks for none. Create it in the scope of the network's
    distribution strategy.
    """

    def __init__(self, network: keras.Model, recipe: Recipe) -> None:
        super().__init__(name="trainable_model")
        self.network = network
        self._recipe = recipe
        self.averages = [
            keras.Variable(weight, trainable=False, aggregation="only_first_replica", name="average")
            for weight in (network.weights if recipe.weight_averaging else ())
        ]
        self.built = True

    def prepare(self, optimizer: keras.Optimizer, *, classes: int) -> None:
        """Compile it with `optimizer` and the recipe's loss, for any distribution strategy."""
        self.compile(
            optimizer=optimizer,
            loss=_LOSSES[self._recipe.loss](),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            # Keras's loop over several steps cannot be built for replicas.
            steps_per_execution=1 if tf.distribute.has_strategy() else self._recipe.steps_per_execution,
            jit_compile=False,  # XLA is slower here on a CPU, and would compile again for the last, smaller batch
        )
        # Built here, in the strategy's scope, instead of on the first batch.
        some = keras.ops.one_hot([0], classes)
        self.compute_loss(y=some, y_pred=some)
        self.compute_metrics(None, some, some)
        self.optimizer.build(self.network.trainable_variables)

    def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
        """Do nothing: `prepare` builds everything. Keras would build on a batch, and fails if it is distributed over
        workers (keras#20585)."""

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.network(images, training=training)

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        if self.averages:
            # A short average at first, so that it soon forgets the untrained weights.
            step = keras.ops.cast(self.optimizer.iterations, "float32")
            decay = keras.ops.minimum(self._recipe.weight_averaging, (1 + step) / (10 + step))
            for average, weight in zip(self.averages, self.network.weights, strict=True):
                average.assign(average + (1 - decay) * (weight - average))
        return self._to_be_reduced(logs)

    def test_step(self, data: Any) -> Any:
        return self._to_be_reduced(super().test_step(data))

    def _to_be_reduced(self, logs: Any) -> Any:
        """Add an axis to metrics if several workers have one each: Keras takes the mean over it (keras#20585)."""
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return logs
        return {name: keras.ops.reshape(value, (1,)) for name, value in logs.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averages, if there are any, as the network's weights while the block runs."""
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
        """Set the network's weights to the averages, if there are any."""
        if self.averages:
            self.network.set_weights([average.numpy() for average in self.averages])
