"""Spread a training over the GPUs of a machine, or over machines, through `tf.distribute`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training.errors import OptionError, WorkerLost
from training.fitting.strategy import StrategyName
from training.tensorflow import keras, tf


@dataclass(frozen=True)
class Distribution:
    """The replicas, each of which computes a share of every batch. The chief alone writes and publishes."""

    strategy: tf.distribute.Strategy | None
    replicas: int = 1
    is_chief: bool = True

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Make and train the network in this context. Raises WorkerLost if another worker has gone."""
        if self.strategy is None:
            yield
            return
        try:
            with self.strategy.scope():
                yield
        except tf.errors.UnavailableError as exc:
            raise WorkerLost("Another worker has stopped. Restart all workers with --resume.") from exc


def open_distribution(name: StrategyName, *, say: Callable[[str], None]) -> Distribution:
    """Return the strategy of that name. Call it before any other use of TensorFlow. Raises OptionError.

    "mirrored" takes all GPUs, or the CPU if there is none. "multi_worker" connects to the workers in `TF_CONFIG`, and
    calls `say` with those that it waits for.
    """
    if name == "none":
        return Distribution(None)
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        return Distribution(strategy, strategy.num_replicas_in_sync)
    try:
        tasks = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
        addresses = [address for job in tasks.values() for address in job]
        if len(addresses) > 1:
            say(f"waiting until all {len(addresses)} workers of TF_CONFIG are there: {', '.join(addresses)}")
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, KeyError, TypeError, RuntimeError, tf.errors.OpError) as exc:
        raise OptionError(f"--strategy multi_worker: TF_CONFIG does not say who the workers are: {exc}") from exc
    resolver = strategy.cluster_resolver
    is_chief = resolver.task_type in (None, "chief") or (
        resolver.task_type == "worker" and resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    )
    return Distribution(strategy, strategy.num_replicas_in_sync, is_chief)


def normalize_over_replicas(network: keras.Model, replicas: int) -> None:
    """Take batch normalisation's statistics from the whole batch if `replicas` share it."""
    for layer in network.layers if replicas > 1 else ():
        if hasattr(layer, "layers"):
            normalize_over_replicas(layer, replicas)
        elif hasattr(layer, "synchronized"):
            layer.synchronized = True
