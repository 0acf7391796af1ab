"""Measure `python -m app predict --shards`: its pictures/s beside those in process, and its memory.

In process the pictures lie in memory and answers are dropped; the command reads files and writes parts.
"""

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.cli.predict.bulk.here import ModelHere
from app.cli.predict.bulk.job import run
from app.cli.predict.bulk.parts import Layout
from app.cli.predict.bulk.plan import Plan
from app.cli.predict.bulk.shard import BATCH, JOURNALS, Target
from app.cli.predict.bulk.worker_pool import Signals, processes
from app.cli.predict.pictures import find
from app.cli.predict.progress import Progress
from app.client import ModelReference
from app.contract.answer_options import AnswerOptions
from app.contract.bundle import open_bundle
from app.settings import Settings
from app.system.cores import available_cores
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.processes import ProcessTree
from benchmarks.harness.table import number, percent, table
from benchmarks.harness.workload import WORK
from benchmarks.serving.in_process import Pipeline, Split, measure_pipeline

_SHARD_SIZE = 1024
_LOOK_EVERY_S = 0.01
_FOLDER = 1000
"""Files in each folder."""


@dataclass
class BulkSpeed:
    """A model's rounds: pictures/s in process, and of the command while its workers are at work."""

    model: str
    pictures: str
    target: float
    in_process: list[float] = field(default_factory=list)
    bulk: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The median share of the pictures/s in process, each within its round."""
        return statistics.median(bulk / in_process for bulk, in_process in zip(self.bulk, self.in_process, strict=True))


@dataclass(frozen=True)
class BulkMemory:
    """The most memory that the command and its workers took together."""

    model: str
    files: int
    peak_mb: float
    seconds: float


def measure_speed(bundle: Path, pictures: Sequence[Path], *, target: float, rounds: int, seconds: float) -> BulkSpeed:
    """Measure both in turn for about `seconds` in each round."""
    encoded = [path.read_bytes() for path in pictures[:64]]
    sizes = [len(each) for each in encoded]
    found = BulkSpeed(bundle.parent.name, f"{min(sizes):,} to {max(sizes):,} bytes", target)
    cores = available_cores()
    split: Split | None = None
    for _ in range(rounds):
        tried = [split] if split else [Split(cores, 1, 16), Split(cores, 1, 64), Split(1, cores, 16)]
        speeds = {each: measure_pipeline(Pipeline("auto"), bundle, encoded, each, seconds=seconds) for each in tried}
        split = max(speeds, key=lambda each: speeds[each])
        found.in_process.append(speeds[split])
        files = linked(pictures, max(4 * BATCH * cores, int(speeds[split] * seconds)))
        found.bulk.append(_speed_of_job(bundle, files))
        print(f"  {found.model:<20}{found.in_process[-1]:>10,.0f}/s {found.bulk[-1]:>10,.0f}/s  ({split})", flush=True)
    return found


def measure_memory(bundle: Path, pictures: Sequence[Path], *, files: int) -> BulkMemory:
    """Run the command over this many files, and watch its memory."""
    folder, out = linked(pictures, files), WORK / "bulk" / "parts"
    shutil.rmtree(out, ignore_errors=True)
    store = bundle.parent.parent
    command = [sys.executable, "-m", "app", "predict", str(folder), "--output", "parquet", "--shards", str(out)]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--model-store", str(store), "--model", bundle.parent.name],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        tree, peak = ProcessTree(process.pid), 0.0
        while process.poll() is None:
            peak = max(peak, tree.proportional_mb())
            time.sleep(0.2)
        said = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}: {said.strip()}")
    return BulkMemory(bundle.parent.name, files, peak, time.monotonic() - began)


def bulk_table(speeds: Sequence[BulkSpeed], memories: Sequence[BulkMemory]) -> str:
    """Return both tables."""
    rows = [
        [
            each.model,
            each.pictures,
            number(statistics.median(each.in_process)),
            number(statistics.median(each.bulk)),
            percent(each.share),
            f"≥ {percent(each.target)}",
            ", ".join(percent(b / i) for b, i in zip(each.bulk, each.in_process, strict=True)),
        ]
        for each in speeds
    ]
    header = ["model", "pictures of", "in process/s", "predict --shards/s", "share", "target", "by round"]
    most = [[each.model, f"{each.files:,}", number(each.peak_mb), number(each.seconds)] for each in memories]
    return table(header, rows) + "\n\n" + table(["model", "files", "most memory, MB (target ≤ 1,000)", "seconds"], most)


def linked(pictures: Sequence[Path], count: int) -> Path:
    """Return a folder of this many files, which are links to the pictures in turn."""
    root = WORK / "bulk" / "pictures"
    shutil.rmtree(root, ignore_errors=True)
    copies = WORK / "bulk" / "originals"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    originals = [Path(shutil.copy(path, copies / f"{index:05}{path.suffix}")) for index, path in enumerate(pictures)]
    for index in range(count):
        folder = root / f"{index // _FOLDER:04}"
        if index % _FOLDER == 0:
            folder.mkdir(parents=True)
        original = originals[index % len(originals)]
        os.link(original, folder / f"{index:07}{original.suffix}")
    return root


def _speed_of_job(bundle: Path, folder: Path) -> float:
    """Return the pictures/s from the first answer to the last part; to start takes a second, of a night."""
    out = WORK / "bulk" / "parts"
    shutil.rmtree(out, ignore_errors=True)
    (out / JOURNALS).mkdir(parents=True)
    manifest = open_bundle(bundle).manifest
    settings = Settings.load()
    layout = Layout("parquet", ModelReference(manifest.name, manifest.version), manifest.labels, AnswerOptions())
    target = Target(out, layout, settings.max_upload_bytes)
    count = sum(1 for _ in find([str(folder)], []))
    size = min(_SHARD_SIZE, 2 * BATCH * max(1, count // (16 * BATCH * available_cores())))
    plan = Plan.of(target, lambda: find([str(folder)], []), size)
    signals = Signals.new()
    model = ModelHere.of(settings, open_bundle(bundle), AnswerOptions(), features=False)
    began: list[tuple[float, int]] = []

    def watch() -> None:
        while not signals.answered.value:
            time.sleep(_LOOK_EVERY_S)
        began.append((time.monotonic(), signals.answered.value))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    progress = Progress(total=None, shown=False)
    with progress, processes(model, target, signals, available_cores()) as pool:
        failed = run(plan, pool, signals, progress)
        ended = time.monotonic()
    if failed:
        raise BenchmarkError(f"{failed} pictures of {folder} have no answer.")
    watcher.join()
    ((first, before),) = began
    return (plan.total - before) / (ended - first)
