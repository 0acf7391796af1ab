"""Measure what a model costs: parameters, bytes, and the time per picture on each engine."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from app.contract.bundle import Signature
from app.contract.preprocessing import Image
from app.engines.engine import Engine
from app.engines.loading import open_engine
from app.engines.registry import ENGINES
from app.errors import BundleTampered, EngineUnavailable
from app.system.cores import available_cores

_BATCH_SIZES = (1, 32)
_SECONDS = 0.1
_FEWEST_RUNS, _MOST_RUNS = 3, 200


def cost(folder: Path, signature: Signature, opened: Engine, images: Image, *, parameters: int) -> dict[str, Any]:
    """Return the cost of the SavedModel in `folder` in JSON's types; it is timed on `images` (N, H, W, C).

    `opened` is one of its engines; the others are opened here.

    Seconds are per picture, the median of some runs, on all cores that the process may use.
    """
    seconds = {opened.name: _seconds_by_batch_size(opened, images)}
    for name in (name for name in ENGINES if name not in seconds):
        try:
            engine = open_engine(name, folder, signature, threads=available_cores())
        except (EngineUnavailable, BundleTampered):
            continue  # not installed, or cannot run this network: the service will report it and use another
        seconds[name] = _seconds_by_batch_size(engine, images)
        engine.close()
    return {
        "parameters": parameters,
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "threads": available_cores(),
        "seconds_per_picture": seconds,
    }


def _seconds_by_batch_size(engine: Engine, images: Image) -> dict[str, float]:
    return {str(size): _seconds_per_picture(engine, images, size) for size in _BATCH_SIZES}


def _seconds_per_picture(engine: Engine, images: Image, batch_size: int) -> float:
    engine.prepare(batch_size)
    batch = images[np.arange(batch_size) % len(images)]
    engine.predict(batch)  # the first call with a batch size is slower
    taken: list[float] = []
    while len(taken) < _FEWEST_RUNS or (sum(taken) < _SECONDS and len(taken) < _MOST_RUNS):
        started = time.perf_counter()
        engine.predict(batch)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) / batch_size
