"""The training within a run: taken up where it was left, spread over devices, kept after every epoch."""

import hashlib
from collections.abc import Sequence

import numpy as np

from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from training.data.tensors import Tensors
from training.fitting.checkpoint import Checkpoint
from training.fitting.distribution import Distribution, normalize_over_replicas, open_distribution
from training.fitting.fit import FitResult, fit
from training.fitting.logs import Logs
from training.fitting.run_folder import Run, new_run, unfinished, unfinished_run
from training.model.network import build_network
from training.options import FitOptions
from training.progress import Reporter
from training.tensorflow import keras, tf


def prepare_tensorflow(options: FitOptions, reporter: Reporter) -> Distribution:
    """Set TensorFlow up as `options` say, before anything else is done with it. Raises OptionError."""
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    return open_distribution(options.strategy, say=reporter.say)


def open_run(
    store: ModelStore, options: FitOptions, data: str, *, distribution: Distribution, reporter: Reporter
) -> Run:
    """Return the unfinished run to go on with, or a new one; `data` is the digest of what it learns.

    Raises CheckpointError, or OptionError where the unfinished run was another one.
    """
    identity = {"command": options.command(), "data": data}
    is_chief = distribution.is_chief
    if options.resume:
        run = unfinished_run(store, options.name, is_chief=is_chief, say=reporter.say)
        if run is not None:
            with run.closed_on_error():
                run.check_same(identity)
            return run
        reporter.say(f"{options.name} has no unfinished run, so this one starts from the beginning")
    else:
        for folder in unfinished(store, options.name)[:1]:
            reporter.say(f"{folder} is unfinished: --resume goes on with it, if nothing else is at work on it")
    return new_run(store, options.name, identity, is_chief=is_chief, say=reporter.say)


def train(
    options: FitOptions,
    train: Tensors,
    validation: Tensors | None,
    *,
    spec: PreprocessingSpec,
    labels: Sequence[str],
    run: Run,
    distribution: Distribution,
    reporter: Reporter,
) -> tuple[keras.Model, FitResult]:
    """Return the trained network, which no strategy has a part in any more, and how it came about.

    Raises what `fit` raises, CheckpointError where an epoch cannot be kept, OptionError where logs cannot be written.
    """
    preset = options.preset
    logs = None if options.logs is None or not distribution.is_chief else Logs(options.logs)

    def build() -> keras.Model:
        return build_network(preset.layers, shape=spec.shape, classes=len(labels), backbone=preset.backbone)

    def after_epoch(checkpoint: Checkpoint) -> None:
        run.keep(checkpoint)
        if logs is not None:
            logs.write(checkpoint.epochs)

    keras.utils.set_random_seed(options.seed)
    with distribution.scope():
        network = build()
        normalize_over_replicas(network, distribution.replicas)
        result = fit(
            network,
            preset.recipe,
            train,
            validation,
            classes=len(labels),
            seed=options.seed,
            reporter=reporter,
            start=run.checkpoint(),
            after_epoch=after_epoch,
        )
        if distribution.strategy is None:
            return network, result
        weights = network.get_weights()  # by all workers, since some are the mean of what they have
    network = build()
    network.set_weights(weights)
    return network, result


def digest_of_data(train: Tensors, validation: Tensors | None) -> str:
    """Return the digest of what a training sees: pictures and targets, in their order."""
    digest = hashlib.sha256()
    for tensors in (train, validation):
        if tensors is not None:
            digest.update(repr(tensors.images.shape).encode())
            digest.update(np.ascontiguousarray(tensors.images).data)
            digest.update(np.ascontiguousarray(tensors.targets).data)
    return digest.hexdigest()
