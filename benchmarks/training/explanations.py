"""Measure how faithfully heat maps show what a network looks at.

A map is good if the label's probability falls soon when its hottest places are hidden first (deletion), and rises soon
when they are shown first (insertion): Petsiuk, Das and Saenko, "RISE" (BMVC 2018). A map depends on the network, and
not only on the picture, if a network with shuffled weights gives a different map: Adebayo et al., "Sanity Checks for
Saliency Maps" (NeurIPS 2018).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from app.contract.bundle import CLASS_MAPS, Bundle
from app.contract.heat_map import enlarged
from app.contract.preprocessing import Image, preprocess
from app.engines.engine import Engine, GivesOutputs
from app.engines.loading import load_model
from app.engines.openvino import import_openvino
from app.serving.explanation import Rise
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import table
from benchmarks.training.trust_plots import draw_maps

Map = NDArray[np.float32]
Outputs = Callable[[Image], Mapping[str, NDArray[np.float32]]]
Maps = Callable[[Image, int], Map]
"""Makes the map (h, w) of a picture (H, W, C) and a label's index."""

MAPS = "heat-maps.jpg"

_STEPS = 8
_BLUR = 0.08
_TOLD_EVERY = 5
_SHOWN = 5
_OURS = ("CAM", "RISE")
_AROUND = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16


@dataclass(frozen=True)
class Fidelity:
    """One picture's scores by a map: the mean probability of the label over the steps of each curve."""

    deletion: float
    insertion: float

    @property
    def total(self) -> float:
        return self.insertion - self.deletion


def measure(
    bundle: Bundle,
    pictures: Path,
    *,
    count: int,
    few: int,
    masks: int,
    threads: int,
    say: Callable[[str], None],
    plots: Path,
) -> str:
    """Return a table in Markdown, of `count` pictures drawn from a folder; for RISE, of the first `few` of them.

    Maps of some by the service's methods are drawn beside each other into the folder `plots`.

    Raises BenchmarkError if the network has no class maps.
    """
    loaded = load_model(bundle.path, threads=threads)
    engine, manifest = loaded.engine, bundle.manifest
    if not isinstance(engine, GivesOutputs) or CLASS_MAPS not in {o.name for o in manifest.signature.other_outputs}:
        raise BenchmarkError(f"{bundle.path} has no class maps on {engine.name}. Measure another.")
    output = manifest.signature.output.name
    files = sorted(file for file in pictures.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png"})
    drawn = [files[row] for row in np.random.default_rng(0).permutation(len(files))[:count]]
    shuffled = shuffled_outputs(bundle)
    bias = np.zeros(len(manifest.labels), np.float32) if bundle.trust is None else bundle.trust.bias
    methods: dict[str, tuple[Maps, Maps | None, int]] = {
        "random": (random_map, None, count),
        "centre": (centre_map, None, count),
        "CAM": (by_class_maps(engine.outputs), by_class_maps(shuffled), count),
        "Recipro-CAM": (by_reciprocal_maps(engine.outputs, bias), None, count),
        "RISE": (
            by_masks(engine.predict, masks),
            by_masks(lambda batch: shuffled(batch)[output], masks),
            few,
        ),
    }
    scores: dict[str, list[Fidelity]] = {name: [] for name in methods}
    correlations: dict[str, list[float]] = {name: [] for name in methods}
    shown: list[tuple[Image, list[Map]]] = []
    for row, file in enumerate(drawn):
        picture = preprocess(file.read_bytes(), manifest.preprocessing)
        label = int(engine.predict(picture[np.newaxis])[0].argmax())
        heats = {}
        for name, (maps, of_shuffled, most) in methods.items():
            if row < most:
                heat = heats[name] = maps(picture, label)
                scores[name].append(fidelity(engine, picture, label, heat))
                if of_shuffled is not None:
                    correlations[name].append(_rank_correlation(heat, of_shuffled(picture, label)))
        shown.append((picture, [heats[name] for name in _OURS if name in heats]))
        if row + 1 == min(_SHOWN, len(drawn)):
            draw_maps(shown, plots / MAPS)
        if (row + 1) % _TOLD_EVERY == 0:
            say(f"{row + 1} of {len(drawn)} pictures\n{_table(scores, correlations)}")
    engine.close()
    return _table(scores, correlations)


def shuffled_outputs(bundle: Bundle) -> Outputs:
    """Return what gives all outputs of the bundle's network with the values of each of its weights shuffled."""
    openvino = import_openvino()
    core, random = openvino.Core(), np.random.default_rng(0)
    model = core.read_model(bundle.path)
    for operation in model.get_ops():
        if operation.get_type_name() == "Constant" and operation.data.dtype == np.float32 and operation.data.size > 1:
            values = operation.data
            weights = openvino.op.Constant(random.permutation(values.ravel()).reshape(values.shape))
            operation.output(0).replace(weights.output(0))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return lambda batch: {port.any_name: values for port, values in compiled(batch).items()}


def by_class_maps(outputs: Outputs) -> Maps:
    """Make maps as the service does of a network with class maps."""
    return lambda picture, label: np.ascontiguousarray(outputs(picture[np.newaxis])[CLASS_MAPS][0, ..., label])


def by_reciprocal_maps(outputs: Outputs, bias: NDArray[np.float32]) -> Maps:
    """Make maps by Recipro-CAM (Byun and Lee 2022, arXiv:2209.14074), as OpenVINO XAI does.

    A value is the label's probability if the last layer gets the features around one place alone, by Gaussian weights.
    """

    def maps(picture: Image, label: int) -> Map:
        found = outputs(picture[np.newaxis])[CLASS_MAPS][0]
        around = cv2.filter2D(found - bias, -1, _AROUND, borderType=cv2.BORDER_CONSTANT)
        logits = around / (found.shape[0] * found.shape[1]) + bias
        likely = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.ascontiguousarray((likely / likely.sum(axis=-1, keepdims=True))[..., label])

    return maps


def by_masks(predict: Callable[[Image], NDArray[np.float32]], masks: int) -> Maps:
    """Make maps as the service does of a network without class maps."""

    def maps(picture: Image, label: int) -> Map:
        rise = Rise(picture)
        for _ in range(masks):
            rise.count(float(predict(rise.next_picture()[np.newaxis])[0, label]))
        return rise.grid

    return maps


def random_map(picture: Image, _label: int) -> Map:
    seed = int(picture.sum(dtype=np.uint64))
    return np.random.default_rng(seed).random((7, 7)).astype(np.float32)


def centre_map(_picture: Image, _label: int) -> Map:
    places = np.linspace(-1, 1, 56)
    return np.asarray(-np.hypot(places[:, np.newaxis], places), np.float32)


def fidelity(engine: Engine, picture: Image, label: int, heat: Map) -> Fidelity:
    """Return the deletion and insertion scores of a map, enlarged as it is drawn, in 8 steps.

    What is hidden has the picture's mean colour; what is not yet shown is blurred.
    """
    height, width = picture.shape[:2]
    rank = (-enlarged(heat, height, width).astype(np.int16)).ravel().argsort(kind="stable").argsort()
    order = rank.reshape(height, width)
    mean = np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
    blurred = cv2.GaussianBlur(picture, (0, 0), _BLUR * height).reshape(picture.shape)
    first = [(order < share)[..., np.newaxis] for share in np.arange(_STEPS + 1) / _STEPS * order.size]
    deleted = np.stack([np.where(hottest, mean, picture) for hottest in first])
    inserted = np.stack([np.where(hottest, picture, blurred) for hottest in first])
    return Fidelity(float(engine.predict(deleted)[:, label].mean()), float(engine.predict(inserted)[:, label].mean()))


def _rank_correlation(ours: Map, theirs: Map) -> float:
    return float(spearmanr(ours.ravel(), theirs.ravel()).statistic)


def _table(scores: Mapping[str, Sequence[Fidelity]], correlations: Mapping[str, Sequence[float]]) -> str:
    rows = []
    for name, found in scores.items():
        if not found:
            continue
        beats = [
            f"{np.mean([mine.total > its.total for mine, its in zip(found, scores[other], strict=False)]):.0%}"
            if name != other
            else ""
            for other in ("random", "centre")
        ]
        rows.append(
            [
                name,
                str(len(found)),
                f"{np.mean([each.deletion for each in found]):.3f}",
                f"{np.mean([each.insertion for each in found]):.3f}",
                *beats,
                f"{np.mean(correlations[name]):+.2f}" if correlations[name] else "",
            ]
        )
    head = ["map", "pictures", "deletion", "insertion", "better than random", "than centre", "correlation, shuffled"]
    return table(head, rows)
