"""Start a network from what its backbone has learned of other pictures.

The blocks that stay as they are answer each picture once, and their answers, the maps, are kept. Then a softmax
regression on the backbone's features becomes the last layer, so that the blocks which learn after it are not spoiled by
random gradients (Kumar et al. 2022, arXiv:2202.10054). What is left to train reads maps instead of pictures, unless
pictures are to be augmented in ways that maps cannot be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.tensor_cache import TensorCache
from training.data.tensors import Tensors
from training.fitting.batches import balanced_weights
from training.fitting.softmax_regression import Linear, fit_softmax
from training.model.activations import Activations, open_activations
from training.model.layers import Backbone
from training.model.network import divide_network
from training.model.preset import Augmentation, Recipe
from training.progress import Reporter
from training.tensorflow import keras

_DECAYS = (0.03, 0.01, 0.005, 0.0025, 0.001, 0.0005, 0.0002)
"""Strengths of the regression, tried from the strongest on, until the held-out loss gets worse."""
_USUAL_DECAY = 0.005
_FOLDS = 5
_LEAST_VALIDATION = 100
"""With fewer validation pictures, folds of the training pictures choose the strength, if these are not many."""
_MOST_FOR_FOLDS = 10_000


@dataclass(frozen=True)
class HeadStart:
    """What is left to train: `network`, which shares its layers with the whole one, and the tensors that it reads."""

    network: keras.Model
    train: Tensors
    validation: Tensors | None


def start_from_backbone(
    network: keras.Model,
    backbone: Backbone,
    recipe: Recipe,
    train: Tensors,
    validation: Tensors | None,
    *,
    classes: int,
    seed: int,
    cache: TensorCache,
    reporter: Reporter,
) -> HeadStart:
    """Set the last layer of `network` by softmax regression, and return what is left to train.

    Raises OptionError if the maps fit neither in memory nor on the disk.
    """
    front, rest = divide_network(network, backbone.fine_tune_from)
    splits = [train] if validation is None else [train, validation]
    with open_activations(front, cache) as first_layers:
        maps = [_answers(first_layers, split.images, "looking at the pictures", reporter) for split in splits]
    with open_activations(keras.Sequential(rest.layers[:-1]), cache) as last_layers:
        features = [_answers(last_layers, found, "working out features", reporter) for found in maps]
        views = features[:1]
        if recipe.augmentation is not None and recipe.augmentation.mirror:
            views = [
                *views,
                _answers(last_layers, maps[0], "working out features of mirror images", reporter, mirrored=True),
            ]
    held_out = None if validation is None else (features[1], validation.targets)
    head, decay, accuracy = _regression(views, train.targets, held_out, recipe, classes=classes, seed=seed)
    rest.layers[-1].set_weights([head.kernel, head.bias])
    measured = "" if accuracy is None else f", validation accuracy {accuracy:.2%}"
    reporter.say(f"head: softmax regression on {views[0].shape[1]:,} features, decay {decay:g}{measured}")
    if not _reads_maps(recipe.augmentation):
        return HeadStart(network, train, validation)
    read = [replace(split, images=found) for split, found in zip(splits, maps, strict=True)]
    return HeadStart(rest, read[0], None if validation is None else read[1])


def _reads_maps(augmentation: Augmentation | None) -> bool:
    return augmentation is None or augmentation == Augmentation(mirror=augmentation.mirror)


def _answers(
    network: Activations, images: NDArray[np.generic], title: str, reporter: Reporter, *, mirrored: bool = False
) -> NDArray[np.float16]:
    with reporter.task(title, len(images)) as advance:
        return network.of(images, mirrored=mirrored, advance=lambda count: advance(count, ""))


def _regression(
    views: Sequence[NDArray[np.float16]],
    targets: NDArray[np.int64],
    held_out: tuple[NDArray[np.float16], NDArray[np.int64]] | None,
    recipe: Recipe,
    *,
    classes: int,
    seed: int,
) -> tuple[Linear, float, float | None]:
    """Return the best layer, its strength, and its accuracy on the validation pictures if there are any."""
    smooth = recipe.label_smoothing
    soft = (np.eye(classes, dtype=np.float32)[targets] * (1 - smooth) + smooth / classes).astype(np.float32)
    weights = balanced_weights(targets, classes)[targets] if recipe.class_weights == "balanced" else None

    def fit(rows: NDArray[np.intp] | slice, decay: float, start: Linear | None) -> Linear:
        shown = [view[rows] for view in views]
        return fit_softmax(
            shown, soft[rows], decay=decay, weights=None if weights is None else weights[rows], start=start
        )

    everything = slice(None)
    divisions: list[tuple[NDArray[np.intp] | slice, NDArray[np.float16], NDArray[np.int64]]] = []
    if held_out is not None and len(held_out[1]) >= _LEAST_VALIDATION:
        divisions = [(everything, *held_out)]
    elif len(targets) <= _MOST_FOR_FOLDS:
        order = np.random.default_rng(seed).permutation(len(targets))
        folds = np.array_split(order, min(_FOLDS, len(order)))
        divisions = [
            (np.setdiff1d(order, fold), views[0][fold], targets[fold]) for fold in folds if len(fold) < len(order)
        ]
    starts: list[Linear | None] = [None] * len(divisions)
    losses: list[float] = []
    found: list[Linear] = []
    for decay in _DECAYS if divisions else ():
        loss = 0.0
        for place, (rows, features, expected) in enumerate(divisions):
            layer = fit(rows, decay, starts[place])
            starts[place] = layer
            loss -= float(layer.log_probabilities(features)[np.arange(len(expected)), expected].sum())
        losses.append(loss)
        if starts[0] is not None and divisions[0][0] is everything:
            found.append(starts[0])
        if len(losses) > 1 and losses[-1] > losses[-2]:
            break
    best = int(np.argmin(losses)) if divisions else _DECAYS.index(_USUAL_DECAY)
    head = found[best] if found else fit(everything, _DECAYS[best], None)
    accuracy = None
    if held_out is not None:
        accuracy = float((head.log_probabilities(held_out[0]).argmax(axis=1) == held_out[1]).mean())
    return head, _DECAYS[best], accuracy
