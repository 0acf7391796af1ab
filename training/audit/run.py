"""One audit, from data to findings: the steps in order, each done by its own module. It writes nothing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from training.audit.balance import find_small_classes
from training.audit.census import census, find_odd_files
from training.audit.checks import Thresholds
from training.audit.duplicates import exact_groups, find_exact, find_near, find_straddling
from training.audit.findings import Finding, worst_first
from training.audit.groups import together
from training.audit.labels import FEWEST_PICTURES, describe, find_wrong_labels, label_probabilities
from training.audit.looks import Look, look_at_all, scale_of
from training.audit.near import near_pairs
from training.audit.pairs import NearPair
from training.audit.quality import find_poor_pictures
from training.audit.report import Audit
from training.dataset import Dataset
from training.progress import Reporter

_SMALLEST_COMPARED = 16  # pixels a side


@dataclass(frozen=True)
class AuditOptions:
    """What to look for: near duplicates and wrong labels take time, all else comes with one look at each picture."""

    near: bool = True
    labels: bool = True
    thresholds: Thresholds = field(default_factory=Thresholds)
    groups: Mapping[str, str] = field(default_factory=dict)


def run_audit(dataset: Dataset, options: AuditOptions, reporter: Reporter) -> Audit:
    """Return what is wrong with the data. Raises an ImageclassError with what stood in the way."""
    pictures, thresholds = dataset.pictures, options.thresholds
    seconds: dict[str, float] = {}
    skipped: dict[str, str] = {}

    with _timed(seconds, "look"), reporter.task("looking at pictures", len(pictures)) as advance:
        scale = scale_of(pictures)
        looks = look_at_all(pictures, scale, lambda count: advance(count, ""))
    findings: list[Finding] = []
    with _timed(seconds, "check"):
        exact = exact_groups(looks)
        findings += find_odd_files(pictures, looks)
        findings += find_exact(pictures, exact)
        findings += find_straddling(pictures, options.groups)
        findings += find_small_classes(pictures, thresholds)
        findings += find_poor_pictures(pictures, looks, thresholds)
    near: list[NearPair] = []
    if options.near and scale.typical < _SMALLEST_COMPARED:
        why = f"pictures of {scale.typical} pixels are too small to tell a copy from a likeness"
        skipped |= dict.fromkeys(("near-duplicate", "near-leakage"), why)
    elif options.near:
        with _timed(seconds, "near duplicates"):
            near = _near(looks, thresholds["near-duplicate"], reporter)
        findings += find_near(pictures, near)
    else:
        skipped |= dict.fromkeys(("near-duplicate", "near-leakage"), "it was not asked for")
    usable = [row for row, look in enumerate(looks) if look.thumbnail is not None]
    if options.labels and len(usable) < FEWEST_PICTURES:
        skipped["wrong-label"] = f"{len(usable)} pictures are too few to learn from ({FEWEST_PICTURES} are needed)"
    elif options.labels:
        with _timed(seconds, "labels"):
            alike = [*exact, *((pair.first, pair.second) for pair in near)]
            joined = together(pictures, alike, options.groups)
            units = [joined.get(pictures[row].id, pictures[row].id) for row in usable]
            findings += _wrong_labels(dataset, looks, usable, units, thresholds["wrong-label"], reporter)
    else:
        skipped["wrong-label"] = "it was not asked for"
    return Audit(
        dataset=dataset,
        looks=looks,
        census=census(dataset, looks),
        findings=worst_first(findings),
        exact=exact,
        near=near,
        groups=options.groups,
        thresholds=thresholds,
        skipped=skipped,
        seconds=seconds,
    )


def _near(looks: Sequence[Look], threshold: float, reporter: Reporter) -> list[NearPair]:
    """Return near duplicates by rows of `looks`; of equal pictures only the first is compared with others."""
    first_of: dict[str, int] = {}
    for row, look in enumerate(looks):
        if look.thumbnail is not None:
            first_of.setdefault(look.pixels, row)
    rows = list(first_of.values())
    thumbnails = np.stack([thumbnail for row in rows if (thumbnail := looks[row].thumbnail) is not None])
    found = near_pairs(thumbnails, np.arange(len(rows)), threshold=threshold, reporter=reporter)
    return [replace(pair, first=rows[pair.first], second=rows[pair.second]) for pair in found]


def _wrong_labels(
    dataset: Dataset,
    looks: Sequence[Look],
    rows: Sequence[int],
    units: Sequence[str],
    strictness: float,
    reporter: Reporter,
) -> Iterator[Finding]:
    place = {label: index for index, label in enumerate(dataset.labels)}
    pictures = [dataset.pictures[row] for row in rows]
    targets = np.array([place[picture.label] for picture in pictures], np.int64)
    thumbnails = np.stack([thumbnail for row in rows if (thumbnail := looks[row].thumbnail) is not None])
    probabilities = label_probabilities(describe(thumbnails, reporter), targets, len(dataset.labels), units, reporter)
    return find_wrong_labels(pictures, dataset.labels, probabilities, strictness)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started
