"""Check on the golden pictures that this installation reproduces training's numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.contract.header import read_header
from app.contract.preprocessing import Image, preprocess
from app.engines.engine import Engine, GivesOutputs
from app.errors import EngineUnavailable, ImageError, SelfCheckFailed

MAX_PROBABILITY_DIFFERENCE = 1e-4
MAX_OUTPUT_DIFFERENCE = 1e-3
"""By how much another output may differ, as a share of its largest golden value."""
MAX_LOSSY_LEVEL_DIFFERENCE = 1
"""Grey levels by which decoders of lossy formats may differ between builds; lossless formats must match exactly."""
_LOSSLESS = {"png", "bmp", "gif", "tiff"}


@dataclass(frozen=True)
class Proof:
    """The check's result: the number of pictures, and the largest difference in probability."""

    pictures: int
    max_probability_difference: float


def check_preprocessing(bundle: Bundle) -> Image:
    """Return the golden tensors (N, H, W, C) as this installation makes them.

    Raises SelfCheckFailed if one differs from the tensor that training made of the same bytes.
    """
    golden, spec = bundle.golden, bundle.manifest.preprocessing
    tensors = []
    for name, encoded, expected in zip(golden.names, golden.encoded, golden.images, strict=True):
        try:
            header = read_header(encoded)
            tensor = preprocess(encoded, spec, header=header)
        except ImageError as exc:
            raise SelfCheckFailed(f"{bundle.path}: golden picture {name} cannot be read: {exc}") from exc
        allowed = 0 if header.format in _LOSSLESS else MAX_LOSSY_LEVEL_DIFFERENCE
        difference = int(np.abs(tensor.astype(np.int16) - expected).max())
        if difference > allowed:
            raise SelfCheckFailed(
                f"{bundle.path}: golden picture {name} is preprocessed differently here than in training, by up to "
                f"{difference} grey levels (allowed: {allowed}). Install the package versions of the lock file."
            )
        tensors.append(tensor)
    return np.stack(tensors)


def check_probabilities(bundle: Bundle, engine: Engine, *, max_difference: float = MAX_PROBABILITY_DIFFERENCE) -> Proof:
    """Raise SelfCheckFailed unless `engine` reproduces TensorFlow's probabilities for the golden pictures."""
    found = [engine.predict(image) for image in _one_at_a_time(check_preprocessing(bundle))]
    return _compare(bundle, engine, np.concatenate(found), max_difference)


def check_batch_size(bundle: Bundle, engine: Engine, size: int, *, max_difference: float) -> Proof:
    """Raise SelfCheckFailed unless `engine` reproduces the golden probabilities in batches of `size`."""
    images = bundle.golden.images
    count = len(images)
    filled = np.resize(images, (-(-count // size) * size, *images.shape[1:]))  # pad the last batch from the front
    batches = [engine.predict(filled[start : start + size]) for start in range(0, len(filled), size)]
    return _compare(bundle, engine, np.concatenate(batches)[:count], max_difference)


def proven_outputs(bundle: Bundle, engine: Engine) -> GivesOutputs:
    """Return the engine if it reproduces the other outputs for the golden pictures.

    Raises SelfCheckFailed if it does not, EngineUnavailable if it gives none.
    """
    golden = bundle.golden
    if not isinstance(engine, GivesOutputs):
        raise EngineUnavailable(f"{engine.name} returns only probabilities. Set another engine.")
    found = [engine.outputs(image) for image in _one_at_a_time(golden.images)]
    for name, expected in golden.other_outputs.items():
        values = np.concatenate([outputs[name] for outputs in found])
        difference = float(np.abs(values - expected).max()) / float(np.abs(expected).max() or 1)
        if not difference <= MAX_OUTPUT_DIFFERENCE:
            raise SelfCheckFailed(
                f"{bundle.path}: {engine.name} gives other {name} for the golden pictures than training did, by up to "
                f"{difference:.2g} of the largest (allowed: {MAX_OUTPUT_DIFFERENCE:g})."
            )
    return engine


def _one_at_a_time(images: Image) -> list[Image]:
    """Return batches of one. An engine keeps the memory of its largest batch: 16 photos take more than the network."""
    return np.split(images, len(images))


def _compare(bundle: Bundle, engine: Engine, found: NDArray[np.float32], max_difference: float) -> Proof:
    golden = bundle.golden
    if found.shape != golden.probabilities.shape:
        raise SelfCheckFailed(
            f"{bundle.path}: {engine.name} answers with shape {found.shape}, not {golden.probabilities.shape}."
        )
    difference = float(np.abs(found - golden.probabilities).max())
    if not difference <= max_difference:  # "not <=", so that NaN fails
        raise SelfCheckFailed(
            f"{bundle.path}: {engine.name} gives probabilities for the golden pictures that differ from training's by "
            f"up to {difference:.2g} (allowed: {max_difference:g})."
        )
    return Proof(pictures=len(golden.names), max_probability_difference=difference)
