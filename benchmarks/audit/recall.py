"""Measure the audit on planted defects, and write the table. `benchmarks.audit.planting` plants them."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.audit.beside import CLEANVISION, COLUMNS, Copies, cleanlab_rows, cleanvision_copies
from benchmarks.audit.planting import NEAR, Planted, mislabel, plant
from benchmarks.harness.table import NONE, table
from training.audit.checks import Thresholds
from training.audit.image_stats import look_at_all, scale_of
from training.audit.label_models import OF_THUMBNAILS, label_model
from training.audit.labels import find_wrong_labels
from training.audit.pipeline import AuditOptions, run_audit
from training.audit.report import Audit
from training.data.dataset import Dataset
from training.data.sources import open_data
from training.data.tensor_cache import NO_CACHE
from training.progress import Reporter

_TARGET_OF_NEAR = {"recompressed": 0.95, "resized": 0.95, "brightened": 0.95}
_TARGET_OF_MOVED = 0.90
_NOISE = (
    (0.05, True, "0.95 / 0.95", "0.80 / 0.60"),
    (0.10, True, "0.95 / 0.95", "0.80 / 0.75"),
    (0.20, True, "0.95 / 0.95", "0.80 / 0.75"),
    (0.10, False, "0.9 / 0.9", NONE),
)
"""The rate of wrong labels, whether it is uniform, and the targets for thumbnails and for photos."""


@dataclass(frozen=True)
class Row:
    """One line of the table; `precision` is None if it is counted for all kinds together.

    `beside` holds others' results by column: recall, and precision if it is counted for this row.
    """

    data: str
    defect: str
    planted: int
    recall: float
    precision: float | None
    target: str
    seconds: float | None
    beside: Mapping[str, str] = field(default_factory=dict)

    def cells(self, columns: Sequence[str] = ()) -> list[str]:
        precision = "" if self.precision is None else f"{self.precision:.3f}"
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        own = [self.data, self.defect, f"{self.planted:,}", f"{self.recall:.3f}", precision, self.target, seconds]
        return own + [self.beside.get(column, NONE) for column in columns]

    def found(self) -> str:
        """Format recall / precision, or recall alone, for another contestant's column."""
        return f"{self.recall:.3f}" + ("" if self.precision is None else f" / {self.precision:.3f}")


HEADER = ("data", "defect", "planted", "recall", "precision", "target", "seconds (CPU)")


def unsplit(data: str) -> Dataset:
    """Open data without splits; if it has a test split, only the training pictures."""
    dataset = open_data(data)
    kept = [replace(picture, split=None) for picture in dataset.pictures if picture.split in (None, "train")]
    return Dataset(dataset.origin, dataset.labels, tuple(kept))


def measure_copies(dataset: Dataset, *, each: int, seed: int, beside: bool = False) -> tuple[list[Row], list[str]]:
    """Plant corrupt files and copies, audit, and return the rows, and notes on false pairs and time.

    With `beside`, cleanvision checks the same files.
    """
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(dataset, Path(folder) / "planted", each=each, seed=seed)
        wall, cpu = time.perf_counter(), time.process_time()
        audit = run_audit(planted.dataset, AuditOptions(labels=False), Reporter())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        theirs = cleanvision_copies(planted, Path(folder) / "beside") if beside else None
    name = dataset.origin
    corrupt = {finding.pictures[0] for finding in audit.findings if finding.check == "corrupt"}
    ours = _ours(audit, planted)
    rows = [_row(name, "corrupt file", planted.corrupt, corrupt, "0.99 / 0.99", None)]
    rows += _rows_of_copies(planted, ours)
    steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in audit.seconds.items())
    notes = [f"{_false_pairs(planted, ours)}; {wall:.0f} s, {cpu:.0f} s of CPU ({steps})"]
    if theirs is not None:
        copies, about = theirs
        cells = {row.defect: {CLEANVISION: row.found()} for row in _rows_of_copies(planted, copies)}
        rows = [replace(row, beside=cells.get(row.defect, {})) for row in rows]
        notes.append(f"{about}; {_false_pairs(planted, copies)}")
    return rows, notes


def measure_labels(dataset: Dataset, *, seed: int, beside: bool = False) -> list[Row]:
    """Mislabel pictures at several rates, audit the labels at each, and return the rows.

    The pictures are the same each time, so they are read and described once; each row's time includes that. With
    `beside`, cleanlab decides on the same probabilities.
    """
    reporter, thresholds, classes = Reporter(), Thresholds(), len(dataset.labels)
    cpu = time.process_time()
    scale = scale_of(dataset.pictures)
    looks = look_at_all(dataset.pictures, scale, lambda count: None)
    model = label_model(looks, scale, NO_CACHE, reporter)
    features = model.describe(dataset.pictures, looks, reporter)
    described = time.process_time() - cpu
    rows = []
    for rate, uniform, *targets_of in _NOISE:
        noisy, wrong = mislabel(dataset, rate=rate, uniform=uniform, seed=seed)
        cpu = time.process_time()
        targets = np.array([dataset.labels.index(picture.label) for picture in noisy.pictures], np.int64)
        units = [picture.id for picture in noisy.pictures]
        probabilities = model.probabilities(features, targets, classes, units, reporter)
        findings = find_wrong_labels(
            noisy.pictures, dataset.labels, probabilities, thresholds["wrong-label"], model.rule
        )
        found = {finding.pictures[0] for finding in findings}
        seconds = described + time.process_time() - cpu
        what = f"{rate:.0%} wrong labels, {'uniform' if uniform else 'by class'}"
        target = targets_of[0] if model is OF_THUMBNAILS else targets_of[1]
        row = _row(dataset.origin, what, wrong, found, target, seconds)
        if beside:
            with tempfile.TemporaryDirectory() as folder:
                theirs = cleanlab_rows(probabilities, targets, Path(folder))
            others = {name: {units[place] for place in places} for name, places in theirs.items()}
            cells = {name: _row("", "", wrong, other, "", None).found() for name, other in others.items()}
            row = replace(row, beside=cells)
        rows.append(row)
    return rows


def markdown(rows: list[Row], notes: list[str]) -> str:
    """Return the table, with others' columns if any has values, and the notes below it."""
    columns = COLUMNS if any(row.beside for row in rows) else ()
    return (
        table((*HEADER, *columns), [row.cells(columns) for row in rows])
        + "\n\n"
        + "\n".join(f"- {note}" for note in notes)
        + "\n"
    )


def _ours(audit: Audit, planted: Planted) -> Copies:
    ids = [picture.id for picture in planted.dataset.pictures]
    return Copies(
        exact={frozenset((ids[a], ids[b])) for group in audit.exact for a in group for b in group if a < b},
        near={frozenset((ids[pair.first], ids[pair.second])) for pair in audit.near},
        # Equal pictures are compared once, under the first's name.
        same={ids[row]: ids[group[0]] for group in audit.exact for row in group},
    )


def _rows_of_copies(planted: Planted, found: Copies) -> list[Row]:
    name, rows = planted.dataset.origin, []
    beside = {pair for pair in found.exact if not planted.is_planted(*pair)}
    for kind in ("exact copy", "exact, other format"):
        wanted = {frozenset(pair) for pair in planted.copies[kind]}
        rows.append(_row(name, kind, wanted, (found.exact & wanted) | beside, "0.99 / 0.99", None))
    for kind in NEAR:
        pairs = planted.copies[kind]
        hit = sum(_same_pair(pair, found) for pair in pairs)
        target = f"{_TARGET_OF_NEAR.get(kind, _TARGET_OF_MOVED):.2f}"
        rows.append(Row(name, kind, len(pairs), hit / len(pairs), None, target, None))
    return rows


def _false_pairs(planted: Planted, found: Copies) -> str:
    count = len(planted.dataset.pictures)
    false = [pair for pair in found.near if not planted.is_planted(*pair)]
    return (
        f"{planted.dataset.origin}: {count:,} pictures, {len(found.near):,} near pairs, {len(false):,} of them not "
        f"planted: {len(false) / count * 1e4:.2f} in 10,000 pictures, {len(false) / (count**2 / 2):.1e} of all pairs"
    )


def _row(data: str, defect: str, wanted: set, found: set, target: str, seconds: float | None) -> Row:  # type: ignore[type-arg]
    hit = len(wanted & found)
    precision = hit / len(found) if found else 1.0
    return Row(data, defect, len(wanted), hit / max(1, len(wanted)), precision, target, seconds)


def _same_pair(pair: tuple[str, str], found: Copies) -> bool:
    compared = frozenset(found.same.get(name, name) for name in pair)
    return frozenset(pair) in found.exact or compared in found.near
