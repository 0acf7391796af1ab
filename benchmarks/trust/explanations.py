"""Measure heat maps: how well they say what a network looks at, and what they cost.

A map is good if hiding its hottest places first takes the label's probability away soon (deletion), and showing them
first brings it back soon (insertion): Petsiuk, Das and Saenko, "RISE" (BMVC 2018). It is a map of the network, and not
of the picture, if that of a network with random weights is another one: Adebayo et al., "Sanity Checks for Saliency
Maps" (NeurIPS 2018).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from app.contract.bundle import CLASS_MAPS, Bundle
from app.contract.preprocessing import Image, PreprocessingSpec, prepare
from app.engines.engine import Engine, GivesOutputs
from app.engines.loading import load_model
from app.engines.openvino import import_openvino
from app.serving.explanation import Rise
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import table
from training.model.presets import preset_named

Map = NDArray[np.float32]
Outputs = Callable[[Image], Mapping[str, NDArray[np.float32]]]
Maps = Callable[[Image, int], Map]
"""Makes the map (h, w) of a picture (H, W, C) and a class."""

_STEPS = 16
_BLUR = 0.08
_NAMES = {
    "cam": "CAM",
    "rise": "RISE",
    "gradcam": "Grad-CAM",
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


def network_of(bundle: Bundle) -> Any:
    """Return the Keras network of a bundle that `fit` wrote. Raises BenchmarkError if it cannot be built again."""
    from training.model.network import build_network
    from training.tensorflow import tf

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


def shuffled(bundle: Bundle) -> Outputs:
    """Return what gives all outputs of the bundle's network with the values of each of its weights shuffled."""
    openvino = import_openvino()
    core, random = openvino.Core(), np.random.default_rng(0)
    model = core.read_model(bundle.path)
    for operation in model.get_ops():
        if operation.get_type_name() == "Constant" and operation.data.dtype == np.float32 and operation.data.size > 1:
            values = operation.data
            weights = openvino.op.Constant(random.permutation(values.ravel()).reshape(values.shape))
            operation.output(0).replace(weights.output(0))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: {port.any_name: values for port, values in compiled(batch).items()}


def by_class_maps(outputs: Outputs) -> Maps:
    """Make maps as the service does of a network with class maps."""
    return lambda picture, label: np.ascontiguousarray(outputs(picture[np.newaxis])[CLASS_MAPS][0, ..., label])


def by_gradients(bundle: Bundle) -> Maps:
    """Make maps by Grad-CAM, straight from Selvaraju et al. (2017): a map's weight is the logit's mean gradient."""
    from training.tensorflow import keras, tf

    network = network_of(bundle)
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


def by_masks(predict: Callable[[Image], NDArray[np.float32]], masks: int) -> Maps:
    """Make maps as the service does of a network without class maps."""

    def maps(picture: Image, label: int) -> Map:
        rise = Rise(picture)
        for _ in range(masks):
            rise.count(float(predict(rise.next_picture()[np.newaxis])[0, label]))
        return rise.grid

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
    bundle_path: Path, pictures: Image, *, name: str, few: int, masks: int, progress: Callable[[str], None]
) -> Explained:
    """Score each method on pictures (N, H, W, C), that by masks on the first `few` of them."""
    loaded = load_model(bundle_path)
    engine, bundle = loaded.engine, loaded.bundle
    has_maps = any(tensor.name == CLASS_MAPS for tensor in bundle.manifest.signature.other_outputs)
    random_network = shuffled(bundle)
    output = bundle.manifest.signature.output.name
    by_method: dict[str, tuple[Maps, Maps | None, int]] = {
        "random": (random_map(1), None, len(pictures)),
        "centre": (centre_map, None, len(pictures)),
        "rise": (
            by_masks(engine.predict, masks), by_masks(lambda batch: random_network(batch)[output], masks), few
        ),
    }  # fmt: skip
    if has_maps and isinstance(engine, GivesOutputs):
        by_method["cam"] = by_class_maps(engine.outputs), by_class_maps(random_network), len(pictures)
        by_method["gradcam"] = by_gradients(bundle), None, len(pictures)
    predicted = np.concatenate([engine.predict(each[np.newaxis]) for each in pictures]).argmax(axis=1)
    scores: dict[str, list[Fidelity]] = {}
    correlations: dict[str, float] = {}
    for method, (maps, of_random_network, count) in by_method.items():
        began = time.perf_counter()
        asked = [(picture, int(label)) for picture, label in zip(pictures[:count], predicted, strict=False)]
        heats = [maps(picture, label) for picture, label in asked]
        scores[method] = [
            fidelity(engine, picture, label, heat) for (picture, label), heat in zip(asked, heats, strict=True)
        ]
        if of_random_network is not None:
            correlations[method] = _mean_correlation(heats, [of_random_network(*each) for each in asked])
        progress(f"{name}: {_NAMES[method]}, {count} pictures in {time.perf_counter() - began:.0f} s")
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
