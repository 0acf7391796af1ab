"""Train a network resumably: resume a run, distribute it over devices, save a checkpoint after every epoch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from training.data.dataset import Split
from training.data.tensor_cache import TensorCache
from training.data.tensors import Tensors
from training.fitting.checkpoint import Checkpoint
from training.fitting.distribution import Distribution, normalize_over_replicas, open_distribution
from training.fitting.fit import FitResult, fit
from training.fitting.logs import Logs
from training.fitting.run_folder import Identity, RunFolder, new_run_folder, unfinished_folders, unfinished_run_folder
from training.fitting.strategy import StrategyName
from training.fitting.transfer import HeadStart, start_from_backbone
from training.model.activations import open_activations
from training.model.network import build_network
from training.model.preset import Preset, Recipe
from training.model.softmax_regression import Linear
from training.progress import Reporter
from training.tensorflow import keras, tf


@dataclass(frozen=True)
class Trained:
    """A trained network, its recipe, and the part of it that was trained (all of it without a backbone), which shares
    its layers.

    The part reads `train` and `validation`.
    """

    network: keras.Model
    recipe: Recipe
    result: FitResult
    part: keras.Model
    train: Tensors
    validation: Tensors | None


def prepare_tensorflow(strategy: StrategyName, *, deterministic: bool, reporter: Reporter) -> Distribution:
    """Configure TensorFlow before any other use of it, and open the strategy. Raises OptionError."""
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    return open_distribution(strategy, say=reporter.say)


def open_run_folder(
    store: ModelStore,
    name: str,
    identity: Identity,
    *,
    resume: bool,
    again: str,
    distribution: Distribution,
    reporter: Reporter,
) -> RunFolder:
    """Return the folder of the unfinished run if `resume` is set and there is one, else that of a new run.

    `again` is the command that resumes the run; it is reported if the folder is kept. Raises CheckpointError, or
    OptionError if the unfinished run has another identity.
    """
    is_chief = distribution.is_chief
    if resume:
        run_folder = unfinished_run_folder(store, name, is_chief=is_chief, say=reporter.say)
        if run_folder is not None:
            with run_folder.closed_on_error():
                run_folder.check_same(identity)
            run_folder.again = again
            return run_folder
        reporter.say(f"{name} has no unfinished run, so this one starts from the beginning")
    else:
        for folder in unfinished_folders(store, name)[:1]:
            reporter.say(f"{folder} is unfinished: --resume continues it, unless another process is working on it")
    run_folder = new_run_folder(store, name, identity, is_chief=is_chief, say=reporter.say)
    run_folder.again = again
    return run_folder


def train(
    preset: Preset,
    train: Tensors,
    validation: Tensors | None,
    *,
    spec: PreprocessingSpec,
    labels: Sequence[str],
    seed: int,
    logs: Path | None,
    start: Checkpoint | None,
    keep: Callable[[Checkpoint], None],
    distribution: Distribution,
    cache: TensorCache,
    reporter: Reporter,
) -> Trained:
    """Train, and return the network, free of any strategy, with the result of the training.

    It resumes from `start`, and passes a checkpoint to `keep` after each epoch. The chief writes each epoch into the
    folder `logs`. Raises what `fit` and `keep` raise, OptionError if logs cannot be written.
    """
    written = None if logs is None or not distribution.is_chief else Logs(logs)

    def build() -> keras.Model:
        return build_network(preset.layers, shape=spec.shape, classes=len(labels), backbone=preset.backbone)

    def after_epoch(checkpoint: Checkpoint) -> None:
        keep(checkpoint)
        if written is not None:
            written.write(checkpoint.epochs)

    keras.utils.set_random_seed(seed)
    with distribution.scope():
        network = build()
        normalize_over_replicas(network, distribution.replicas)
        left = HeadStart(network, preset.recipe, train, validation)
        if preset.backbone is not None and preset.backbone.is_taught:
            left = start_from_backbone(
                network,
                preset.backbone,
                preset.recipe,
                train,
                validation,
                classes=len(labels),
                seed=seed,
                cache=cache,
                reporter=reporter,
            )
        before = None if left.head_accuracy is None else left.network.get_weights()
        result = fit(
            left.network,
            left.recipe,
            left.train,
            left.validation,
            classes=len(labels),
            seed=seed,
            reporter=reporter,
            start=start,
            after_epoch=after_epoch,
        )
        result = replace(result, parameters=network.count_params(), head_accuracy=left.head_accuracy)
        if before is not None and _was_better(left, result):
            reporter.say("fine-tuning made it worse on the validation pictures, so the head alone is kept")
            left.network.set_weights(before)
            result = replace(result, best_epoch=0)
        if distribution.strategy is None:
            return Trained(network, left.recipe, result, left.network, left.train, left.validation)
        weights = network.get_weights()  # by all workers, because some weights are means over workers
    network = build()
    network.set_weights(weights)
    return Trained(network, left.recipe, result, network, train, validation)


def _was_better(start: HeadStart, result: FitResult) -> bool:
    after = result.epochs[result.best_epoch - 1].validation_accuracy if result.epochs else None
    return after is not None and start.head_accuracy is not None and start.head_accuracy > after


def known_features(trained: Trained, cache: TensorCache, reporter: Reporter) -> NDArray[np.float16] | None:
    """Return the features (N, D) of the training pictures, the input of the last layer; None if it was not trained on
    maps.

    They cost little, because the maps save most of the work. If only the last layer was trained, the cache has them.
    """
    if trained.part is trained.network:
        return None
    images, (*layers, _) = trained.train.images, trained.part.layers
    with (
        open_activations(keras.Sequential(layers), cache) as before_head,
        reporter.task("measuring on train pictures", len(images)) as advance,
    ):
        return before_head.of(images, advance=lambda count: advance(count, ""))


def known_answers(trained: Trained, features: NDArray[np.float16] | None) -> dict[Split, NDArray[np.float32]]:
    """Return the probabilities (N, K) of the training pictures by their features; empty if these are None."""
    if features is None:
        return {}
    return {"train": np.exp(Linear(*trained.part.layers[-1].get_weights()).log_probabilities(features))}


def digest_of_data(train: Tensors, validation: Tensors | None) -> str:
    """Return the digest of the training data: pictures and targets, in order."""
    digest = hashlib.sha256()
    for tensors in (train, validation):
        if tensors is not None:
            digest.update(repr(tensors.images.shape).encode())
            digest.update(np.ascontiguousarray(tensors.images).data)
            digest.update(np.ascontiguousarray(tensors.targets).data)
    return digest.hexdigest()
