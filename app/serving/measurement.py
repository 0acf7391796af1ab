"""Measure one worker's speed without HTTP: decode and classify the golden pictures, batch after batch.

It knows nothing of requests or queues. The result is an upper bound: a worker's rate if HTTP cost nothing.
"""

import time
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.serving.versions import TunedModel

_MANY = 1 << 30
_REPEATS = 5


@dataclass(frozen=True)
class Measurement:
    """`decode_s` has the seconds of each golden picture, from bytes to a prepared image; `batch_size` is that of the
    measurement."""

    decode_s: tuple[float, ...]
    batch_size: int
    pictures_per_s: float


def measure(model: TunedModel, *, seconds: float) -> Measurement:
    """Decode and classify the golden pictures for some seconds, at least one batch, as a busy worker would."""
    bundle, engine = model.loaded.bundle, model.loaded.engine
    spec = bundle.manifest.preprocessing
    decode_s = tuple(min(_time(encoded, spec) for _ in range(_REPEATS)) for encoded in bundle.golden.encoded)
    size = model.tuning.plan.next_step(_MANY).size
    pictures = cycle(bundle.golden.encoded)
    done, began = 0, time.perf_counter()
    while True:
        engine.predict(np.stack([preprocess(encoded, spec) for encoded in islice(pictures, size)]))
        done += size
        taken = time.perf_counter() - began
        if taken >= seconds:
            return Measurement(decode_s, size, done / taken)


def _time(encoded: bytes, spec: PreprocessingSpec) -> float:
    began = time.perf_counter()
    preprocess(encoded, spec)
    return time.perf_counter() - began
