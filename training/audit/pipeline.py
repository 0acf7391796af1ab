"""One audit, from data to findings: the steps in order, each done by its own module. It writes nothing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from app.system.wording import count_of
from training.audit.balance import find_small_classes
from training.audit.cache import Cache, KnownPairs
from training.audit.census import census, find_layout, find_odd_files
from training.audit.checks import Thresholds
from training.audit.details import reader
from training.audit.duplicates import exact_groups, find_exact, find_near, find_straddling
from training.audit.findings import Finding, worst_first
from training.audit.groups import together
from training.audit.image_stats import Look, Scale, look_at_all, scale_of
from training.audit.label_models import have_details, label_model
from training.audit.labels import FEWEST_PICTURES, find_wrong_labels
from training.audit.near import near_pairs
from training.audit.pairs import NearPair
from training.audit.quality import find_poor_pictures
from training.audit.report import Audit
from training.data.dataset import Dataset, Picture
from training.data.tensor_cache import NO_CACHE, TensorCache
from training.progress import Reporter

_SMALLEST_COMPARED = 16  # pixels a side


@dataclass(frozen=True)
class AuditOptions:
    """What to look for.

    Near duplicates and wrong labels take time; everything else needs one look at each picture. `tensors` caches a
    network's features of photos, which trainings use, too.
    """

    near: bool = True
    labels: bool = True
    thresholds: Thresholds = field(default_factory=Thresholds)
    groups: Mapping[str, str] = field(default_factory=dict)
    cache: Cache = field(default_factory=lambda: Cache(None, ""))
    tensors: TensorCache = NO_CACHE


def run_audit(dataset: Dataset, options: AuditOptions, reporter: Reporter) -> Audit:
    """Return what is wrong with the data. Raises an ImageclassError if the audit cannot be made."""
    pictures, thresholds = dataset.pictures, options.thresholds
    seconds: dict[str, float] = {}
    skipped: dict[str, str] = {}

    cache = options.cache
    with _timed(seconds, "look"):
        scale = scale_of(pictures)
        looks = _looks(pictures, scale, cache, reporter)
    findings: list[Finding] = []
    with _timed(seconds, "check"):
        exact = exact_groups(looks)
        findings += find_layout(dataset)
        findings += find_odd_files(pictures, looks)
        findings += find_exact(pictures, exact)
        findings += find_straddling(pictures, options.groups)
        findings += find_small_classes(pictures, thresholds)
        findings += find_poor_pictures(pictures, looks, thresholds)
    near: list[NearPair] = []
    if options.near and scale.typical < _SMALLEST_COMPARED:
        why = f"pictures of {scale.typical} pixels are too small to distinguish copies from similar ones"
        skipped |= dict.fromkeys(("near-duplicate", "near-leakage"), why)
    elif options.near:
        with _timed(seconds, "near duplicates"):
            near = _near(pictures, looks, scale, thresholds["near-duplicate"], cache, reporter)
        findings += find_near(pictures, near)
    else:
        skipped |= dict.fromkeys(("near-duplicate", "near-leakage"), "it was turned off")
    usable = [row for row, look in enumerate(looks) if look.thumbnail is not None]
    if options.labels and len(usable) < FEWEST_PICTURES:
        skipped["wrong-label"] = (
            f"{count_of(len(usable), 'picture')}, too few to learn from ({FEWEST_PICTURES} are needed)"
        )
    elif options.labels and len({pictures[row].label for row in usable}) < 2:
        skipped["wrong-label"] = "there is one class"
    elif options.labels:
        with _timed(seconds, "labels"):
            alike = [*exact, *((pair.first, pair.second) for pair in near)]
            joined = together(pictures, alike, options.groups)
            units = [joined.get(pictures[row].id, pictures[row].id) for row in usable]
            findings += _wrong_labels(dataset, looks, scale, usable, units, options, reporter)
    else:
        skipped["wrong-label"] = "it was turned off"
    unsettled = [each for each in findings if not dataset.decided.settles(each.check, each.pictures)]
    return Audit(
        dataset=dataset,
        looks=looks,
        census=census(dataset, looks),
        findings=worst_first(unsettled),
        settled=len(findings) - len(unsettled),
        exact=exact,
        near=near,
        groups=options.groups,
        thresholds=thresholds,
        skipped=skipped,
        seconds=seconds,
    )


def _looks(pictures: Sequence[Picture], scale: Scale, cache: Cache, reporter: Reporter) -> list[Look]:
    known = cache.looks(pictures, scale)
    new = [row for row in range(len(pictures)) if row not in known]
    with reporter.task("looking at pictures", len(pictures)) as advance:
        advance(len(known), "")
        seen = look_at_all([pictures[row] for row in new], scale, lambda count: advance(count, ""))
    known |= dict(zip(new, seen, strict=True))
    looks = [known[row] for row in range(len(pictures))]
    if new:
        cache.keep_looks(pictures, looks, scale)
    return looks


def _near(
    pictures: Sequence[Picture],
    looks: Sequence[Look],
    scale: Scale,
    threshold: float,
    cache: Cache,
    reporter: Reporter,
) -> list[NearPair]:
    """Return near duplicates by rows of `looks`; of equal pictures only the first is compared with others.

    Pictures that an earlier run has compared with each other are not compared again.
    """
    first_of: dict[str, int] = {}
    for row, look in enumerate(looks):
        if look.thumbnail is not None:
            first_of.setdefault(look.pixels, row)
    if not first_of:
        return []
    digests = list(first_of)
    thumbnails = np.stack([thumbnail for row in first_of.values() if (thumbnail := looks[row].thumbnail) is not None])
    known = cache.near(thumbnails.shape[1], threshold)
    new = np.array([place for place, digest in enumerate(digests) if digest not in known.compared], np.intp)
    read = reader([pictures[row] for row in first_of.values()]) if have_details(scale) else None
    found = [
        (digests[pair.first], digests[pair.second], pair)
        for pair in near_pairs(thumbnails, new, threshold=threshold, reporter=reporter, read=read)
    ]
    found += [entry for entry in known.pairs if entry[0] in first_of and entry[1] in first_of]
    if len(new):
        cache.keep_near(thumbnails.shape[1], threshold, KnownPairs(frozenset(digests), tuple(found)))
    pairs = [replace(pair, first=first_of[first], second=first_of[second]) for first, second, pair in found]
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.first, pair.second))


def _wrong_labels(
    dataset: Dataset,
    looks: Sequence[Look],
    scale: Scale,
    rows: Sequence[int],
    units: Sequence[str],
    options: AuditOptions,
    reporter: Reporter,
) -> Iterator[Finding]:
    place = {label: index for index, label in enumerate(dataset.labels)}
    pictures = [dataset.pictures[row] for row in rows]
    targets = np.array([place[picture.label] for picture in pictures], np.int64)
    digests = [looks[row].pixels for row in rows]
    model = label_model(looks, scale, options.tensors, reporter)
    probabilities = options.cache.probabilities(model.name, digests, targets, dataset.labels)
    if probabilities is None:
        features = model.describe(pictures, [looks[row] for row in rows], reporter)
        probabilities = model.probabilities(features, targets, len(dataset.labels), units, reporter)
        options.cache.keep_probabilities(model.name, digests, targets, dataset.labels, probabilities)
    strictness = options.thresholds["wrong-label"]
    return find_wrong_labels(pictures, dataset.labels, probabilities, strictness, model.rule)


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started
