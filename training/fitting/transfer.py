"""Transfer learning: start a network from a backbone trained on other pictures.

The frozen blocks compute the feature maps of each picture once, and the maps are cached. Then a softmax regression on
the backbone's features becomes the last layer, so that random gradients do not distort the blocks that are trained
after it (Kumar et al. 2022, arXiv:2202.10054). Those blocks are trained on maps instead of pictures, unless the
augmentation cannot be applied to maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from training.data.tensor_cache import TensorCache
from training.data.tensors import Tensors
from training.fitting.batches import balanced_weights
from training.model.activations import Activations, open_activations
from training.model.layers import Backbone
from training.model.network import divide_network
from training.model.preset import Augmentation, Recipe
from training.model.softmax_regression import Linear, fit_softmax
from training.progress import Reporter
from training.tensorflow import keras

_DECAYS = (0.03, 0.01, 0.005, 0.0025, 0.001, 0.0005, 0.0002)
"""Strengths of the regression, tried from the strongest on, until the held-out loss gets worse."""
_USUAL_DECAY = 0.005
_FOLDS = 5
_LEAST_VALIDATION = 100
"""With fewer validation pictures, cross-validation on the training pictures chooses the strength, unless these are
many."""
_MOST_FOR_FOLDS = 10_000
_LEAST_FOR_MIRRORING = 20
_SIGNIFICANT = 0.05
_MUCH_IN_THE_MIRROR = 0.1
"""A loss of accuracy beyond what unseen mirror images cause: photos of clothes lose 0.035 when they are mirrored."""


@dataclass(frozen=True)
class HeadStart:
    """What is left to train: `network`, which shares its layers with the whole network, by `recipe`, on these inputs.

    `head_accuracy` is that of the regression on the validation pictures; None without a regression or such pictures.
    """

    network: keras.Model
    recipe: Recipe
    train: Tensors
    validation: Tensors | None
    head_accuracy: float | None = None


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

    Mirroring is removed from the recipe if held-out pictures show that mirror images are no longer of their class, as
    with letters. Raises OptionError if the maps fit neither in memory nor on the disk.
    """
    front, rest = divide_network(network, backbone.fine_tune_from)
    splits = [train] if validation is None else [train, validation]
    with open_activations(front, cache) as first_layers:
        maps = [_answers(first_layers, split.images, "computing feature maps", reporter) for split in splits]
        mirrors = recipe.augmentation is not None and recipe.augmentation.mirror
        in_the_mirror = None
        if mirrors and validation is not None:
            title = "computing feature maps of mirrored pictures"
            in_the_mirror = _answers(first_layers, validation.images, title, reporter, mirrored=True)
    problem = _Regression(train.targets, recipe, classes=classes, seed=seed)
    held_out = None
    with open_activations(keras.Sequential(rest.layers[:-1]), cache) as last_layers:
        features = _answers(last_layers, maps[0], "computing features", reporter)
        if validation is not None:
            held_out = HeldOut(last_layers.of(maps[1]), validation.targets)
        decay, head = problem.choose(features, held_out)
        if in_the_mirror is not None and held_out is not None:
            mirrors = held_out.survives_mirroring(head, last_layers.of(in_the_mirror), reporter)
        if mirrors:
            mirrored = _answers(last_layers, maps[0], "computing features of mirrored maps", reporter, mirrored=True)
            head = problem.solve([features, mirrored], decay, start=head)
    rest.layers[-1].set_weights([head.kernel, head.bias])
    accuracy = None if held_out is None else float(held_out.right(head, held_out.features).mean())
    measured = "" if accuracy is None else f", validation accuracy {accuracy:.2%}"
    reporter.say(f"head: softmax regression on {features.shape[1]:,} features, decay {decay:g}{measured}")
    if recipe.augmentation is not None:
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, mirror=mirrors))
    if not _reads_maps(recipe.augmentation):
        return HeadStart(network, recipe, train, validation, accuracy)
    read = [replace(split, images=found) for split, found in zip(splits, maps, strict=True)]
    return HeadStart(rest, recipe, read[0], None if validation is None else read[1], accuracy)


def _reads_maps(augmentation: Augmentation | None) -> bool:
    return augmentation is None or augmentation == Augmentation(mirror=augmentation.mirror)


def _answers(
    network: Activations, images: NDArray[np.generic], title: str, reporter: Reporter, *, mirrored: bool = False
) -> NDArray[np.float16]:
    with reporter.task(title, len(images)) as advance:
        return network.of(images, mirrored=mirrored, advance=lambda count: advance(count, ""))


@dataclass(frozen=True)
class HeldOut:
    """Features (N, D) of pictures that are not learned, and the indices (N,) of their labels."""

    features: NDArray[np.float16]
    targets: NDArray[np.int64]

    def right(self, layer: Linear, features: NDArray[np.float16]) -> NDArray[np.bool_]:
        """Say for which pictures (N,) the layer is right; `features` are those of the pictures."""
        return np.asarray(layer.log_probabilities(features).argmax(axis=1) == self.targets)

    def loss(self, layer: Linear) -> float:
        """Return the sum of the pictures' cross-entropies."""
        return -float(layer.log_probabilities(self.features)[np.arange(len(self.targets)), self.targets].sum())

    def survives_mirroring(self, layer: Linear, mirrored: NDArray[np.float16], reporter: Reporter) -> bool:
        """Say whether the layer recognises mirror images, with features (N, D), almost as well, by McNemar's test."""
        plain, flipped = self.right(layer, self.features), self.right(layer, mirrored)
        lost, won = int((plain & ~flipped).sum()), int((flipped & ~plain).sum())
        is_much = lost - won > _MUCH_IN_THE_MIRROR * len(plain)
        if len(plain) < _LEAST_FOR_MIRRORING or not is_much or binomtest(won, won + lost).pvalue > _SIGNIFICANT:
            return True
        reporter.say(
            f"mirror images are not learned: {flipped.mean():.1%} of the validation pictures are recognised in the "
            f"mirror, {plain.mean():.1%} as they are"
        )
        return False


class _Regression:
    """The problem of one data set: targets (N,), and how the recipe smooths and weighs them."""

    def __init__(self, targets: NDArray[np.int64], recipe: Recipe, *, classes: int, seed: int) -> None:
        self._targets, self._seed = targets, seed
        smooth = recipe.label_smoothing
        self._soft = (np.eye(classes, dtype=np.float32)[targets] * (1 - smooth) + smooth / classes).astype(np.float32)
        balanced = recipe.class_weights == "balanced"
        self._weights = balanced_weights(targets, classes)[targets] if balanced else None

    def solve(
        self,
        views: Sequence[NDArray[np.float16]],
        decay: float,
        *,
        start: Linear | None = None,
        rows: NDArray[np.intp] | slice = slice(None),
    ) -> Linear:
        weights = None if self._weights is None else self._weights[rows]
        shown = [view[rows] for view in views]
        return fit_softmax(shown, self._soft[rows], decay=decay, weights=weights, start=start)

    def choose(self, features: NDArray[np.float16], held_out: HeldOut | None) -> tuple[float, Linear]:
        """Return the strength with the least held-out loss, and the layer that all features (N, D) give with it."""
        count = len(self._targets)
        divisions: list[tuple[NDArray[np.intp] | slice, HeldOut]] = []
        if held_out is not None and len(held_out.targets) >= _LEAST_VALIDATION:
            divisions = [(slice(None), held_out)]
        elif _FOLDS <= count <= _MOST_FOR_FOLDS:
            order = np.random.default_rng(self._seed).permutation(count)
            for fold in np.array_split(order, _FOLDS):
                divisions.append((np.setdiff1d(order, fold), HeldOut(features[fold], self._targets[fold])))
        layers: list[Linear | None] = [None] * len(divisions)
        best, least = _USUAL_DECAY, np.inf
        for decay in _DECAYS if divisions else ():
            layers = [
                self.solve([features], decay, start=layer, rows=rows)
                for layer, (rows, _) in zip(layers, divisions, strict=True)
            ]
            loss = sum(apart.loss(layer) for layer, (_, apart) in zip(layers, divisions, strict=True) if layer)
            if loss > least:
                break
            best, least = decay, loss
        return best, self.solve([features], best, start=layers[0] if layers else None)
