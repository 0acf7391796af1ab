"""Measure the audit on planted defects, and write the table. The planting is `benchmarks.audit_planting`'s."""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.audit_planting import NEAR, mislabel, plant
from benchmarks.table import table
from training.audit.checks import Thresholds
from training.audit.labels import describe, find_wrong_labels, label_probabilities
from training.audit.looks import look_at_all, scale_of
from training.audit.run import AuditOptions, run_audit
from training.dataset import Dataset
from training.progress import Reporter
from training.sources import open_data

_TARGET_OF_NEAR = {"recompressed": 0.95, "resized": 0.95, "brightened": 0.95}
_TARGET_OF_MOVED = 0.90
_NOISE = ((0.05, True, 0.95), (0.10, True, 0.95), (0.20, True, 0.95), (0.10, False, 0.90))


@dataclass(frozen=True)
class Row:
    """One line of the table; `precision` is None where it is counted for all kinds together."""

    data: str
    defect: str
    planted: int
    recall: float
    precision: float | None
    target: str
    seconds: float | None

    def cells(self) -> list[str]:
        precision = "" if self.precision is None else f"{self.precision:.3f}"
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        return [self.data, self.defect, f"{self.planted:,}", f"{self.recall:.3f}", precision, self.target, seconds]


HEADER = ("data", "defect", "planted", "recall", "precision", "target", "seconds (CPU)")


def unsplit(data: str) -> Dataset:
    """Open data as one heap: of data with a test split, the training pictures."""
    dataset = open_data(data)
    kept = [replace(picture, split=None) for picture in dataset.pictures if picture.split in (None, "train")]
    return Dataset(dataset.origin, dataset.labels, tuple(kept))


def measure_copies(dataset: Dataset, *, each: int, seed: int) -> tuple[list[Row], str]:
    """Plant corrupt files and copies, audit, and return the rows and a line on false pairs and time."""
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(dataset, Path(folder), each=each, seed=seed)
        wall, cpu = time.perf_counter(), time.process_time()
        audit = run_audit(planted.dataset, AuditOptions(labels=False), Reporter())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    pictures, name = planted.dataset.pictures, dataset.origin
    corrupt = {finding.pictures[0] for finding in audit.findings if finding.check == "corrupt"}
    rows = [_row(name, "corrupt file", planted.corrupt, corrupt, "0.99 / 0.99", audit.seconds["look"])]
    exact = {
        frozenset((pictures[a].id, pictures[b].id)) for group in audit.exact for a in group for b in group if a < b
    }
    for kind in ("exact copy", "exact, other format"):
        wanted = {frozenset(pair) for pair in planted.copies[kind]}
        beside = {pair for pair in exact if not planted.is_planted(*pair)}
        rows.append(_row(name, kind, wanted, (exact & wanted) | beside, "0.99 / 0.99", None))
    near = {frozenset((pictures[pair.first].id, pictures[pair.second].id)) for pair in audit.near}
    false = [pair for pair in near if not planted.is_planted(*pair)]
    # Equal pictures are compared once, under the first's name.
    same = {pictures[row].id: pictures[group[0]].id for group in audit.exact for row in group}
    for kind in NEAR:
        pairs = planted.copies[kind]
        hit = sum(_same_pair(pair, near, exact, same) for pair in pairs)
        target = f"{_TARGET_OF_NEAR.get(kind, _TARGET_OF_MOVED):.2f}"
        rows.append(Row(name, kind, len(pairs), hit / len(pairs), None, target, None))
    note = (
        f"{name}: {len(pictures):,} pictures, {len(near):,} near pairs, {len(false)} of them not planted: "
        f"{len(false) / len(pictures) * 1e4:.2f} in 10,000 pictures, {len(false) / (len(pictures) ** 2 / 2):.1e} of "
        f"all pairs; {wall:.0f} s, {cpu:.0f} s of CPU ("
        + ", ".join(f"{step} {seconds:.0f} s" for step, seconds in audit.seconds.items())
        + ")"
    )
    return rows, note


def measure_labels(dataset: Dataset, *, seed: int) -> list[Row]:
    """Mislabel pictures at several rates, look for wrong labels in each, and return the rows.

    The pictures are the same each time, so they are looked at and described once; a row's time counts that in.
    """
    reporter, thresholds, classes = Reporter(), Thresholds(), len(dataset.labels)
    cpu = time.process_time()
    looks = look_at_all(dataset.pictures, scale_of(dataset.pictures), lambda count: None)
    features = describe(np.stack([look.thumbnail for look in looks if look.thumbnail is not None]), reporter)
    described = time.process_time() - cpu
    rows = []
    for rate, uniform, target in _NOISE:
        noisy, wrong = mislabel(dataset, rate=rate, uniform=uniform, seed=seed)
        cpu = time.process_time()
        targets = np.array([dataset.labels.index(picture.label) for picture in noisy.pictures], np.int64)
        units = [picture.id for picture in noisy.pictures]
        probabilities = label_probabilities(features, targets, classes, units, reporter)
        findings = find_wrong_labels(noisy.pictures, dataset.labels, probabilities, thresholds["wrong-label"])
        found = {finding.pictures[0] for finding in findings}
        seconds = described + time.process_time() - cpu
        what = f"{rate:.0%} wrong labels, {'uniform' if uniform else 'by class'}"
        rows.append(_row(dataset.origin, what, wrong, found, f"{target} / {target}", seconds))
    return rows


def markdown(rows: list[Row], notes: list[str]) -> str:
    return table(HEADER, [row.cells() for row in rows]) + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _row(data: str, defect: str, wanted: set, found: set, target: str, seconds: float | None) -> Row:  # type: ignore[type-arg]
    hit = len(wanted & found)
    precision = hit / len(found) if found else 1.0
    return Row(data, defect, len(wanted), hit / max(1, len(wanted)), precision, target, seconds)


def _same_pair(
    pair: tuple[str, str], near: set[frozenset[str]], exact: set[frozenset[str]], same: dict[str, str]
) -> bool:
    first, second = (same.get(name, name) for name in pair)
    return frozenset(pair) in exact or frozenset((first, second)) in near
