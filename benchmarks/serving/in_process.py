"""The upper bound without HTTP: decode, preprocess and infer in batches, on all cores, by the service's engines.

Splits of the cores are tried (processes × engine threads × batch size), and the best counts.
"""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from app.contract.preprocessing import preprocess, use_one_thread_per_picture
from app.engines.loading import load_model
from app.engines.registry import EngineChoice
from app.errors import ImageclassError
from app.system.cores import available_cores
from benchmarks.harness.contestant import NO_BF16, Precision
from benchmarks.harness.errors import DidNotStart
from benchmarks.harness.machine import has_bf16
from benchmarks.harness.workload import Workload

_START_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Split:
    """A use of the cores."""

    processes: int
    threads: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.processes} × {self.threads} threads, batch {self.batch_size}"


@dataclass(frozen=True)
class Pipeline:
    """An engine without HTTP, whose speed is an upper bound."""

    engine: EngineChoice
    precision: Precision = "f32"

    @property
    def name(self) -> str:
        return f"in-process-{self.engine}-{self.precision}"

    def reason_to_skip(self) -> str | None:
        return NO_BF16 if self.precision == "auto" and not has_bf16() else None


@dataclass(frozen=True)
class PipelineSpeed:
    """A split's speed; `round` counts from 1."""

    round: int
    split: Split
    pictures_per_s: float


def pipelines() -> list[Pipeline]:
    return [Pipeline("openvino"), Pipeline("openvino", "auto"), Pipeline("tensorflow")]


def splits(workload: Workload, *, short: bool) -> list[Split]:
    """Return the splits to try: a process for each core with one thread, and one process with all cores."""
    cores = available_cores()
    largest = workload.batch_size
    sizes = (largest // 4, largest) if short else sorted({1 if largest < 16 else 16, largest // 2, largest})
    apart = [Split(cores, 1, size) for size in sizes]
    return apart if short or cores == 1 else [*apart, *(Split(1, cores, size) for size in sizes)]


def measure_pipeline(
    pipeline: Pipeline, bundle: Path, pictures: Sequence[bytes], split: Split, *, seconds: float
) -> float:
    """Return the pictures a second of all processes together. Raises DidNotStart."""
    context = multiprocessing.get_context("spawn")
    arguments = (pipeline, bundle, pictures, split, seconds)
    pairs = [context.Pipe() for _ in range(split.processes)]
    workers = [context.Process(target=_work, args=(theirs, *arguments), daemon=True) for _, theirs in pairs]
    try:
        for worker in workers:
            worker.start()
        for ours, _ in pairs:
            _hear(ours, _START_TIMEOUT_S)  # ready
        for ours, _ in pairs:
            ours.send("go")
        speeds = [float(_hear(ours, seconds + 60)) for ours, _ in pairs]
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    return sum(speeds)


def _hear(connection: Connection, timeout_s: float) -> str:
    try:
        if connection.poll(timeout_s):
            kind, value = connection.recv()
            if kind == "failed":
                raise DidNotStart(value)
            return str(value)
    except EOFError as exc:
        raise DidNotStart("a process of the pipeline ended") from exc
    raise DidNotStart(f"a process of the pipeline said nothing for {timeout_s:.0f} s")


def _work(
    connection: Connection, pipeline: Pipeline, bundle: Path, pictures: Sequence[bytes], split: Split, seconds: float
) -> None:
    use_one_thread_per_picture()
    try:
        loaded = load_model(bundle, engine=pipeline.engine, threads=split.threads, precision=pipeline.precision)
    except ImageclassError as exc:
        connection.send(("failed", str(exc)))
        return
    spec = loaded.bundle.manifest.preprocessing
    batch = np.zeros((split.batch_size, *spec.shape), np.uint8)
    loaded.engine.prepare(split.batch_size)
    loaded.engine.predict(batch)
    connection.send(("ready", ""))
    connection.recv()
    done = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        for row in range(split.batch_size):
            batch[row] = preprocess(pictures[(done + row) % len(pictures)], spec)
        loaded.engine.predict(batch)
        done += split.batch_size
    connection.send(("done", done / elapsed))
