"""Run cleanvision and cleanlab on the data that the audit is measured on, each in its own environment.

Data is passed as files, and findings are returned as JSON. `benchmarks.audit.recall` computes the scores.
"""

import json
import subprocess
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.audit.planting import Planted
from benchmarks.harness.environment import python_of
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.workload import HERE

CLEANVISION = "cleanvision"
CLEANLAB = {"prune_by_noise_rate": "cleanlab", "confident_learning": "cleanlab, confident_learning"}
"""The columns' names by the filter of `find_label_issues`; the first is its default."""
COLUMNS = (CLEANVISION, *CLEANLAB.values())

_TIMEOUT_S = 3600

Pairs = set[frozenset[str]]


@dataclass(frozen=True)
class Copies:
    """Pairs of pictures, by id. `same` maps a picture to the one that was compared in its place, if another was."""

    exact: Pairs
    near: Pairs
    same: dict[str, str] = field(default_factory=dict)


def cleanvision_copies(planted: Planted, folder: Path) -> tuple[Copies, str]:
    """Return cleanvision's copies, and a sentence on its version and the corrupt files.

    The corrupt files are a separate run: it has no check for them, and a crash on one would lose all results.
    """
    names = {}
    for row, picture in enumerate(planted.dataset.pictures):
        suffix = picture.content.suffix.lower() if isinstance(picture.content, Path) else ".png"
        place = folder / ("corrupt" if picture.id in planted.corrupt else "pictures")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row:07}{suffix}").write_bytes(picture.encoded())
        names[f"{row:07}{suffix}"] = picture.id
    found = _asked("cleanvision", folder / "pictures")
    try:
        _asked("cleanvision", folder / "corrupt")
        corrupt = "says nothing of the corrupt files"
    except BenchmarkError as exc:
        corrupt = f"ends at a corrupt file, so that it was given the others only ({exc})"
    copies = Copies(exact=_pairs(found["exact"], names), near=_pairs(found["near"], names))
    return copies, f"cleanvision {found['version']} {corrupt}"


def cleanlab_rows(probabilities: NDArray[Any], targets: NDArray[np.int64], folder: Path) -> dict[str, list[int]]:
    """Return the rows whose labels cleanlab finds wrong, by column."""
    file = folder / "labels.npz"
    np.savez(file, labels=targets, probabilities=probabilities)
    found = _asked("cleanlab", file)
    return {column: found[name] for name, column in CLEANLAB.items()}


def _pairs(sets: list[list[str]], names: dict[str, str]) -> Pairs:
    return {frozenset((names[a], names[b])) for found in sets for a, b in combinations(found, 2)}


def _asked(contestant: str, data: Path) -> dict[str, Any]:
    """Run a contestant's check on data, and return its answer. Raises BenchmarkError with its last output."""
    command = [str(python_of(contestant)), str(HERE / "contestants" / contestant / "check.py"), str(data)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise BenchmarkError(f"{contestant} took longer than {_TIMEOUT_S} s") from exc
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BenchmarkError(f"{contestant}: {words[-1].replace(str(data.parent), '').split(' <')[0].strip()}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
