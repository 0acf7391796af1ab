"""Choose how to run a model on this machine, by a short measurement of its real engine before it goes live.

For a small network this takes some tenths of a second, most of them for OpenVINO to compile each batch size. It is done
at every start: a measurement from another machine, or from a busier day, would be worthless. A version that replaces
one of the same kind under load takes over its tuning: on a busy machine, the measurement would measure the load.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Literal

import cv2
import numpy as np

from app.contract.preprocessing import preprocess
from app.engines.loading import LoadedModel
from app.engines.proof import check_batch_size
from app.serving.batch_plan import BatchPlan

InferencePlace = Literal["auto", "loop", "thread"]

_SIZES = (1, 4, 16, 64, 256, 1024)
"""Few, because OpenVINO compiles a network for each; `BatchPlan` composes other sizes of these."""
_GAIN = 0.95
"""A larger batch is worth its delay if its cost per picture is at most this share of the smaller one's."""
_PER_BATCH_S = 0.0003
"""What a batch costs besides inference, about. Filling it takes a tenth of that. For the rest, the network and the code
between two batches presumably push each other out of the processor's caches (docs/explanation/benchmarks.md)."""
_LOOP_S = 0.004
"""A batch that takes longer runs in a thread, to leave the event loop free. A quicker one runs on the loop, because a
thread hop costs 0.1 to 0.3 ms, and two threads compete for the interpreter's lock."""
_DECODE_S = 0.0005
"""A picture that takes longer to decode goes to a thread pool, for the same two reasons."""
_PROBE_SIDE = 256
_REPEATS = 4
_ENOUGH_S = 0.02
_BUSY = 5
"""On a busy machine, measure this many times as long: then at least one call is undisturbed."""


@dataclass(frozen=True)
class TuningOptions:
    """The settings that bound the tuning; "auto" and None leave a value to the measurement."""

    max_batch_size: int = 64
    inference_place: InferencePlace = "auto"
    inline_decode_pixels: int | None = None


@dataclass(frozen=True)
class Tuning:
    """How to run a model. `batch_seconds` has the batch sizes, and the seconds of inference for a batch of each."""

    batch_seconds: dict[int, float]
    on_event_loop: bool
    inline_decode_pixels: int

    @cached_property
    def plan(self) -> BatchPlan:
        return BatchPlan({size: _PER_BATCH_S + seconds for size, seconds in self.batch_seconds.items()})


def tune(
    loaded: LoadedModel,
    options: TuningOptions,
    *,
    known: Tuning | None = None,
    busy: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> Tuning:
    """Find the batch sizes that are worth using, prepare the engine for them, and check its answers in each.

    `known` is the tuning of a model of the same kind in this process: then nothing is measured. On a machine that is
    `busy` with other work, more calls are timed before the fastest counts. `pause` is called between the steps. Raises
    SelfCheckFailed if the engine gives other answers in batches of one of the sizes.
    """
    patience = _BUSY if busy else 1
    if known is not None:
        _prepare(loaded, known.batch_seconds, pause)
        return known
    rough = _sizes_that_gain(loaded, options.max_batch_size, patience)
    if options.inference_place == "auto":
        # If single pictures are quick, the event loop runs the batch sizes that are quick, too.
        on_loop = rough[1] <= _LOOP_S
        sizes = [size for size, seconds in rough.items() if seconds <= _LOOP_S] if on_loop else list(rough)
    else:
        on_loop, sizes = options.inference_place == "loop", list(rough)
    pause()
    _prepare(loaded, sizes, pause)
    pixels = options.inline_decode_pixels
    return Tuning(
        batch_seconds={size: _time_batch(loaded, size, patience) for size in sizes},
        on_event_loop=on_loop,
        inline_decode_pixels=_inline_decode_pixels(loaded, patience) if pixels is None else pixels,
    )


def _prepare(loaded: LoadedModel, sizes: Iterable[int], pause: Callable[[], None]) -> None:
    for size in sizes:
        loaded.engine.prepare(size)
        check_batch_size(loaded.bundle, loaded.engine, size, max_difference=loaded.max_probability_difference)
        pause()


def _sizes_that_gain(loaded: LoadedModel, largest: int, patience: int) -> dict[int, float]:
    """Return the seconds of inference for a batch of each size, from 1 up, as long as a larger one costs less per
    picture."""
    found: dict[int, float] = {}
    least = inf
    for size in [*(size for size in _SIZES if size < largest), largest]:
        seconds = _time_batch(loaded, size, patience)
        cost = (_PER_BATCH_S + seconds) / size
        if cost > _GAIN * least:
            break
        found[size], least = seconds, cost
    return found


def _time_batch(loaded: LoadedModel, size: int, patience: int) -> float:
    golden = loaded.bundle.golden.images
    batch = np.resize(golden, (size, *golden.shape[1:]))
    return _fastest(lambda: loaded.engine.predict(batch), patience)


def _inline_decode_pixels(loaded: LoadedModel, patience: int) -> int:
    """Return how many pixels can be decoded in the time for which decoding may block the event loop."""
    side = _PROBE_SIDE
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, side * side * 3).reshape(side, side, 3)
    picture = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", picture)
    data, spec = jpeg.tobytes(), loaded.bundle.manifest.preprocessing
    return int(side * side * _DECODE_S / _fastest(lambda: preprocess(data, spec), patience))


def _fastest(call: Callable[[], object], patience: int) -> float:
    """Return the seconds of the fastest of a few calls, after one call to warm up."""
    call()
    times = []
    for _ in range(_REPEATS * patience):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
        if sum(times) > _ENOUGH_S * patience:
            break
    return min(times)
