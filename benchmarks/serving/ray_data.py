"""Measure `predict --engine ray` beside Ray Data's own recipe: whole commands over the same files, in turn."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.environment import python_of
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import number, table
from benchmarks.harness.workload import HERE, WORK
from benchmarks.serving.bulk import linked

OURS = "predict --engine ray"
_RECIPES = {"2 actors of half a core": ("2", "0.5"), "1 actor of a core": ("1", "1")}
_TIMEOUT_S = 1200


@dataclass
class RaySpeed:
    """Pictures/s of whole commands, by contestant, a figure for each round."""

    files: int
    by_contestant: dict[str, list[float]] = field(default_factory=dict)

    def markdown(self) -> str:
        """Return a row for each contestant, with ours over it within each round."""
        ours = self.by_contestant[OURS]
        rows = []
        for name, speeds in self.by_contestant.items():
            ratios = [mine / its for mine, its in zip(ours, speeds, strict=True)]
            by_round = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            rows.append([name, number(statistics.median(speeds)), f"{statistics.median(ratios):.2f}", by_round])
        return table([f"{self.files:,} photos", "pictures/s", "ours over it", "by round"], rows)


def measure_ray(bundle: Path, pictures: Sequence[Path], *, files: int, rounds: int) -> RaySpeed:
    """Run all in turn over this many files; a second command of each round finds the files in the page cache too.

    Raises BenchmarkError if a command fails.
    """
    folder, found = linked(pictures, files), RaySpeed(files)
    ours = [str(python_of("ours_ray")), "-m", "app", "predict", str(folder), "--engine", "ray"]
    ours += ["--model-store", str(bundle.parent.parent), "--model", bundle.parent.name, "--output", "parquet"]
    recipe = [str(python_of("ray_data")), str(HERE / "contestants" / "ray_data" / "recipe.py"), str(folder)]
    for _ in range(rounds):
        for name in (OURS, *_RECIPES):
            out = WORK / "bulk" / "parts"
            shutil.rmtree(out, ignore_errors=True)
            command = [*ours, "--shards", str(out)] if name == OURS else [*recipe, str(out), *_RECIPES[name]]
            seconds = _seconds_of(command, {"BENCHMARK_BUNDLE": str(bundle)})
            found.by_contestant.setdefault(name, []).append(files / seconds)
            print(f"  {name:<26}{files / seconds:>10,.1f}/s", flush=True)
    return found


def _seconds_of(command: Sequence[str], variables: dict[str, str]) -> float:
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=HERE.parent,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkError(f"{' '.join(command)} had not ended after {_TIMEOUT_S} s.") from exc
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return time.monotonic() - began
