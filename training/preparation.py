"""Prepare data in the same way for `fit`, `sweep` and `folds`: open, group, inspect, assign to splits, load as tensors.

It uses the audit, which finds pictures that must stay together, and the options, which say how to split the data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.contract.preprocessing import PreprocessingSpec
from app.system.wording import count_of
from training.audit.cache import Cache
from training.audit.groups import groups_of
from training.audit.inspection import Inspection, inspect
from training.data.dataset import SPLITS, Dataset, Split
from training.data.folds import hold_out
from training.data.sources import open_data
from training.data.split import Assignment, assign_splits, fractions_to_hold_out
from training.data.tensor_cache import TensorCache
from training.data.tensors import BadPicture, Tensors, UnusablePictures, load_tensors
from training.errors import DataError
from training.options import FitOptions
from training.progress import Reporter


@dataclass(frozen=True)
class Inspected:
    """Opened data, the group of each grouped picture by its id, and the result of the inspection."""

    dataset: Dataset
    groups: Mapping[str, str]
    inspection: Inspection


@dataclass(frozen=True)
class Prepared:
    """Inspected data whose pictures are assigned to splits. A fold that is held out is marked as test in `dataset`."""

    dataset: Dataset
    groups: Mapping[str, str]
    inspection: Inspection
    assignment: Assignment
    on_bad_image: Literal["skip", "fail"]
    cache: TensorCache

    def tensors(
        self, split: Split, spec: PreprocessingSpec, *, advance: Callable[[int], None] | None = None
    ) -> Tensors:
        """Load a split, which must have pictures. Raises as `load_tensors` does."""
        return load_tensors(
            self.assignment.pictures(split),
            spec,
            self.assignment.labels,
            on_bad_image=self.on_bad_image,
            advance=advance,
            cache=self.cache,
        )


def open_inspected(
    data: str,
    *,
    validation: float = 0.0,
    test: float = 0.0,
    in_folds: bool = False,
    group_by: str | None,
    allow_leakage: bool = False,
    cache: bool = True,
    reporter: Reporter,
) -> Inspected:
    """Open data that is to be divided by shares or in folds, and look for copies and groups.

    Raises DataError, OptionError for shares that cannot be held out or a `group_by` that groups nothing, and
    LeakageError unless leakage is allowed.
    """
    dataset = open_data(data, say=reporter.say)
    fractions = fractions_to_hold_out(dataset, validation=validation, test=test)
    groups = groups_of(dataset, data, group_by)
    inspection = inspect(
        dataset,
        data=data,
        groups=groups,
        divides=in_folds or any(fractions.values()),
        allow_leakage=allow_leakage,
        cache=Cache.of_user(data, keeps=cache),
        reporter=reporter,
    )
    return Inspected(dataset, groups, inspection)


def prepare(options: FitOptions, reporter: Reporter) -> Prepared:
    """Open and inspect the data, and assign every picture to a split. Raises an ImageclassError."""
    validation, test, fold = options.preset.recipe.validation, options.test, options.fold
    found = open_inspected(
        options.data,
        validation=validation,
        test=test,
        in_folds=fold is not None,
        group_by=options.group_by,
        allow_leakage=options.allow_leakage,
        cache=options.cache,
        reporter=reporter,
    )
    dataset, together = found.dataset, found.inspection.together
    if fold is not None:
        dataset = hold_out(dataset, fold, seed=options.seed, together=together)
    assignment = assign_splits(dataset, seed=options.seed, validation=validation, test=test, together=together)
    cache = TensorCache.of_user(keeps=options.cache, say=reporter.say)
    return Prepared(dataset, found.groups, found.inspection, assignment, options.on_bad_image, cache)


def load_splits(
    prepared: Prepared, spec: PreprocessingSpec, reporter: Reporter, *, wanted: Sequence[Split] = SPLITS
) -> dict[Split, Tensors]:
    """Load every wanted split that has pictures, and report which pictures were skipped.

    Raises as `load_tensors` does, but names the bad pictures of all splits at once; and DataError if there are no
    training pictures.
    """
    splits = [split for split in wanted if prepared.assignment.pictures(split)]
    if "train" not in splits:
        raise DataError("No pictures are left to train on.")
    loaded: dict[Split, Tensors] = {}
    bad: list[BadPicture] = []
    for split in splits:
        try:
            loaded[split] = _load_split(prepared, split, spec, reporter)
        except UnusablePictures as exc:
            bad += exc.bad
    if bad:
        raise UnusablePictures(bad, len(prepared.assignment.rows))
    return loaded


def _load_split(prepared: Prepared, split: Split, spec: PreprocessingSpec, reporter: Reporter) -> Tensors:
    count = len(prepared.assignment.pictures(split))
    with reporter.task(f"reading {split} pictures", count) as advance:
        tensors = prepared.tensors(split, spec, advance=lambda done: advance(done, ""))
    for bad in tensors.skipped:
        reporter.say(f"skipped {bad.id}: {bad.reason}")
    if tensors.skipped:
        reporter.say(f"skipped {len(tensors.skipped)} of {count_of(count, f'{split} picture')}")
    return tensors
