"""Measure heat maps: how well they say what a network looks at, and what they cost.

A map is good if hiding its hottest places first takes the label's probability away soon (deletion), and showing them
first brings it back soon (insertion): Petsiuk, Das and Saenko, "RISE" (BMVC 2018). It is a map of the network, and not
of the picture, if that of a network with random weights is another one: Adebayo et al., "Sanity Checks for Saliency
Maps" (NeurIPS 2018).
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from app.contract.bundle import Bundle
from app.contract.preprocessing import Image, PreprocessingSpec, prepare
from app.engines.engine import Engine, GivesOutputs
from app.engines.loading import load_model
from app.serving.explanation import Rise
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import table
from training.model.network import build_network
from training.model.presets import preset_named
from training.tensorflow import keras, tf

Map = NDArray[np.float32]
Maps = Callable[[Image, int], Map]
"""Makes the map (h, w) of a picture (H, W, C) and a class."""

_STEPS = 16
_MASKS = 1000
_BLUR = 0.08
_NAMES = {
    "cam": "CAM",
    "rise": "RISE",
    "gradcam": "Grad-CAM",
    "xplique": "RISE of xplique",
    "random": "random",
    "centre": "centre",
}


@dataclass(frozen=True)
class Fidelity:
    """One picture's scores by a map: the mean probability of the label over the steps of each curve."""

    deletion: float
    insertion: float

    @property
    def total(self) -> float:
        return self.insertion - self.deletion


@dataclass(frozen=True)
class Explained:
    """What was found for one bundle, by method."""

    model: str
    fidelities: Mapping[str, Sequence[Fidelity]]
    random_network: Mapping[str, float]
    """The mean rank correlation of a method's maps with those of the network with random weights."""

    def rows(self) -> list[list[str]]:
        def beats(method: str, other: str) -> str:
            pairs = zip(self.fidelities[method], self.fidelities[other], strict=False)
            return f"{np.mean([mine.total > its.total for mine, its in pairs]):.0%}"

        return [
            [
                f"{self.model}: {_NAMES[method]}",
                str(len(found)),
                f"{np.mean([each.deletion for each in found]):.3f}",
                f"{np.mean([each.insertion for each in found]):.3f}",
                beats(method, "random") if method != "random" else "",
                beats(method, "centre") if method != "centre" else "",
                f"{self.random_network[method]:.2f}" if method in self.random_network else "",
            ]
            for method, found in self.fidelities.items()
        ]


def network_of(bundle: Bundle) -> keras.Model:
    """Return the Keras network of a bundle that `fit` wrote. Raises BenchmarkError if it cannot be built again."""
    manifest = bundle.manifest
    preset = preset_named(str(manifest.training["preset"]))
    network = build_network(
        preset.layers, shape=manifest.preprocessing.shape, classes=len(manifest.labels), backbone=preset.backbone
    )
    saved = tf.saved_model.load(str(bundle.path)).weights
    if [tuple(each.shape) for each in saved] != [tuple(each.shape) for each in network.variables]:
        raise BenchmarkError(f"{bundle.path} has other weights than its preset. Measure one that this release trained.")
    for variable, value in zip(network.variables, saved, strict=True):
        variable.assign(value)
    return network


def with_random_weights(network: keras.Model) -> keras.Model:
    """Return the network with the values of each of its weights shuffled."""
    random, copy = np.random.default_rng(0), type(network).from_config(network.get_config())
    for variable, value in zip(copy.variables, network.get_weights(), strict=True):
        variable.assign(random.permutation(value.reshape(-1)).reshape(value.shape))
    return copy


def by_class_maps(network: keras.Model) -> Maps:
    """Make maps as the output `class_maps` has them."""
    *_, pool, head = network.layers
    body = keras.Model(network.inputs, pool.input)
    kernel, bias = (weight.numpy() for weight in head.weights)

    def maps(picture: Image, label: int) -> Map:
        return np.asarray(body(picture[np.newaxis], training=False).numpy()[0] @ kernel[:, label] + bias[label])

    return maps


def by_gradients(network: keras.Model) -> Maps:
    """Make maps by Grad-CAM, straight from Selvaraju et al. (2017): a map's weight is the logit's mean gradient."""
    *_, pool, head = network.layers
    body = keras.Model(network.inputs, pool.input)
    kernel, bias = head.weights

    def maps(picture: Image, label: int) -> Map:
        features = body(picture[np.newaxis], training=False)
        with tf.GradientTape() as tape:
            tape.watch(features)
            logit = (tf.reduce_mean(features, axis=(1, 2)) @ kernel.value + bias.value)[0, label]
        weights = tf.reduce_mean(tape.gradient(logit, features), axis=(1, 2))
        return np.asarray(tf.nn.relu(tf.reduce_sum(features * weights, axis=-1)).numpy()[0])

    return maps


def by_masks(predict: Callable[[Image], NDArray[np.float32]], masks: int = _MASKS) -> Maps:
    """Make maps as the service does of a network without class maps."""

    def maps(picture: Image, label: int) -> Map:
        rise = Rise(picture)
        for _ in range(masks):
            rise.count(float(predict(rise.next_picture()[np.newaxis])[0, label]))
        return rise.grid

    return maps


def by_xplique(predict: Callable[[Image], NDArray[np.float32]], folder: Path, masks: int = _MASKS) -> Maps:
    """Make maps by the RISE of xplique, which is installed in a folder of its own."""
    sys.path.append(str(folder))
    from xplique.attributions import Rise as Theirs  # type: ignore[import-not-found]

    class Model(tf.Module):  # type: ignore[misc]
        def __call__(self, pictures: Any) -> Any:
            return tf.constant(predict(np.clip(np.rint(pictures), 0, 255).astype(np.uint8)))

    def maps(picture: Image, label: int) -> Map:
        classes = predict(picture[np.newaxis]).shape[1]
        theirs = Theirs(
            Model(), batch_size=1, nb_samples=masks, grid_size=7, mask_value=float(picture.mean()),
            operator=lambda model, inputs, targets: tf.reduce_sum(model(inputs) * targets, axis=-1),
        )  # fmt: skip
        found = theirs(picture[np.newaxis].astype(np.float32), np.eye(classes, dtype=np.float32)[[label]])
        return np.asarray(found).reshape(picture.shape[:2])

    return maps


def random_map(seed: int) -> Maps:
    random = np.random.default_rng(seed)
    return lambda _picture, _label: random.random((7, 7)).astype(np.float32)


def centre_map(picture: Image, _label: int) -> Map:
    height, width = picture.shape[:2]
    rows, columns = np.linspace(-1, 1, height)[:, np.newaxis], np.linspace(-1, 1, width)
    return np.asarray(-np.hypot(rows, columns), np.float32)


def fidelity(engine: Engine, picture: Image, label: int, heat: Map) -> Fidelity:
    """Return the deletion and insertion scores of a map, in 16 steps.

    What is hidden has the picture's mean colour; what is not yet shown is blurred.
    """
    order = (-_enlarged(heat, picture)).ravel().argsort(kind="stable").argsort().reshape(picture.shape[:2])
    mean = np.rint(picture.mean(axis=(0, 1))).astype(np.uint8)
    sigma = _BLUR * picture.shape[0]
    blurred = cv2.GaussianBlur(picture, (0, 0), sigma).reshape(picture.shape)
    hidden = [np.broadcast_to(mean, picture.shape), blurred]
    shares = np.arange(1, _STEPS + 1) / _STEPS * order.size
    first = [(order < share)[..., np.newaxis] for share in (0, *shares)]
    deleted = np.stack([np.where(hottest, hidden[0], picture) for hottest in first])
    inserted = np.stack([np.where(hottest, picture, hidden[1]) for hottest in first])
    return Fidelity(float(engine.predict(deleted)[:, label].mean()), float(engine.predict(inserted)[:, label].mean()))


def measure(
    bundle_path: Path, pictures: Image, *, name: str, few: int, xplique: Path | None, progress: Callable[[str], None]
) -> Explained:
    """Score each method on pictures (N, H, W, C), those that need many runs on the first `few` of them."""
    loaded = load_model(bundle_path)
    engine, network = loaded.engine, network_of(loaded.bundle)
    shuffled = with_random_weights(network)
    methods: dict[str, tuple[Maps, int]] = {
        "cam": (by_class_maps(network), len(pictures)),
        "gradcam": (by_gradients(network), len(pictures)),
        "random": (random_map(1), len(pictures)),
        "centre": (centre_map, len(pictures)),
        "rise": (by_masks(engine.predict), few),
    }
    if xplique is not None:
        methods["xplique"] = by_xplique(engine.predict, xplique), few
    predicted = np.concatenate([engine.predict(each[np.newaxis]) for each in pictures]).argmax(axis=1)
    scores: dict[str, list[Fidelity]] = {}
    drawn: dict[str, list[Map]] = {}
    for method, (maps, count) in methods.items():
        began = time.perf_counter()
        drawn[method] = [maps(picture, int(label)) for picture, label in zip(pictures[:count], predicted, strict=False)]
        scores[method] = [
            fidelity(engine, picture, int(label), heat)
            for picture, label, heat in zip(pictures, predicted, drawn[method], strict=False)
        ]
        progress(f"{name}: {_NAMES[method]}, {count} pictures in {time.perf_counter() - began:.0f} s")
    answer = shuffled.predict_on_batch
    randomised = {"cam": by_class_maps(shuffled), "rise": by_masks(lambda batch: np.asarray(answer(batch)), 300)}
    correlations = {
        method: _mean_correlation(drawn[method], [maps(picture, int(label)) for picture, label in zip(
            pictures[:few], predicted, strict=False)])
        for method, maps in randomised.items()
    }  # fmt: skip
    engine.close()
    return Explained(name, scores, correlations)


@dataclass(frozen=True)
class Cost:
    """The median seconds of a run of one picture, for its probabilities alone and with its class maps."""

    model: str
    predict_s: float
    explain_s: float

    @property
    def ratio(self) -> float:
        return self.explain_s / self.predict_s


def measure_cost(bundle_path: Path, *, name: str, rounds: int) -> Cost:
    """Time both in turn, picture after picture, on the golden pictures."""
    loaded = load_model(bundle_path)
    engine = loaded.engine
    if not isinstance(engine, GivesOutputs):
        raise BenchmarkError(f"{engine.name} gives no class maps. Measure on another engine.")
    engine.prepare(1)
    pictures = loaded.bundle.golden.images
    seconds: dict[Callable[[Image], object], list[float]] = {engine.predict: [], engine.outputs: []}
    for index in range(rounds):
        for run, taken in seconds.items():
            batch = pictures[index % len(pictures)][np.newaxis]
            began = time.perf_counter()
            run(batch)
            taken.append(time.perf_counter() - began)
    plain, whole = (float(np.median(taken[rounds // 10 :])) for taken in seconds.values())
    engine.close()
    return Cost(name, plain, whole)


def explanations_table(found: Sequence[Explained], costs: Sequence[Cost]) -> str:
    """Return both as Markdown."""
    head = ["map", "pictures", "deletion", "insertion", "beats random", "beats centre", "correlation, random network"]
    fidelities = table(head, [row for each in found for row in each.rows()])
    rows = [
        [each.model, f"{each.predict_s * 1e3:.2f} ms", f"{each.explain_s * 1e3:.2f} ms", f"{each.ratio:.2f}"]
        for each in costs
    ]
    return f"{fidelities}\n\n{table(['one picture', 'prediction', 'with class maps', 'ratio'], rows)}"


def _enlarged(heat: Map, picture: Image) -> Map:
    height, width = picture.shape[:2]
    if heat.shape == (height, width):
        return heat
    low, high = float(heat.min()), float(heat.max())
    levels = np.rint((heat - low) * (255 / (high - low or 1))).astype(np.uint8)
    spec = PreprocessingSpec(height=height, width=width, colour="grey", interpolation="linear")
    return prepare(levels, spec)[..., 0].astype(np.float32)


def _mean_correlation(ours: Sequence[Map], others: Sequence[Map]) -> float:
    found = [float(spearmanr(one.ravel(), other.ravel()).statistic) for one, other in zip(ours, others, strict=False)]
    return float(np.nanmean(found))
