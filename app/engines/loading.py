"""Load a bundle on the fastest engine that is proven to agree with training."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.contract.bundle import Bundle, open_bundle
from app.engines.engine import Engine, EngineChoice, EngineFactory, EngineName
from app.engines.openvino import open_openvino
from app.engines.proof import Proof, check_probabilities
from app.engines.tensorflow import open_tensorflow
from app.errors import BundleTampered, EngineUnavailable, ImageclassError, SelfCheckFailed

_FACTORIES: dict[EngineName, EngineFactory] = {"openvino": open_openvino, "tensorflow": open_tensorflow}
_BY_SPEED: tuple[EngineName, ...] = ("openvino", "tensorflow")


@dataclass(frozen=True)
class LoadedModel:
    """A bundle on a proven engine; `reason` says why this engine runs it, `refusals` what spoke against others."""

    bundle: Bundle
    engine: Engine
    reason: str
    proof: Proof
    refusals: tuple[ImageclassError, ...] = ()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_model(
    path: Path, *, engine: EngineChoice = "auto", threads: int | None = None, batch_sizes: Sequence[int] = ()
) -> LoadedModel:
    """Open the bundle at `path`, check it whole, and run each of `batch_sizes` once so that no request pays for it.

    "auto" takes the first of OpenVINO and TensorFlow that passes the golden check. Raises a BundleError or
    EngineUnavailable with the reason.
    """
    bundle = open_bundle(path)
    loaded = _load_first_proven(bundle, engine, threads or available_cores())
    for size in batch_sizes:
        loaded.engine.predict(np.zeros((size, *bundle.manifest.preprocessing.shape), np.uint8))
    return loaded


def _load_first_proven(bundle: Bundle, choice: EngineChoice, threads: int) -> LoadedModel:
    if choice != "auto":
        engine, proof = _open_proven(choice, bundle, threads)
        return LoadedModel(bundle, engine, f"set to {choice}", proof)
    refused: dict[EngineName, ImageclassError] = {}
    for name in _BY_SPEED:
        try:
            engine, proof = _open_proven(name, bundle, threads)
        except (EngineUnavailable, SelfCheckFailed, BundleTampered) as exc:
            refused[name] = exc
            continue
        reason = "the fastest engine, and it passed the golden check"
        if refused:
            reason = "; ".join(f"{other} was refused ({error.code})" for other, error in refused.items())
        return LoadedModel(bundle, engine, reason, proof, tuple(refused.values()))
    # What is wrong with the bundle says more than an engine that is not installed.
    errors = list(refused.values())
    raise next((error for error in errors if not isinstance(error, EngineUnavailable)), errors[0])


def _open_proven(name: EngineName, bundle: Bundle, threads: int) -> tuple[Engine, Proof]:
    engine = _FACTORIES[name](bundle.path, bundle.manifest.signature, threads=threads)
    try:
        return engine, check_probabilities(bundle, engine)
    except SelfCheckFailed:
        engine.close()
        raise
