"""The baseline: the published version that a new one is compared with, and its scores on the same pictures."""

from collections.abc import Sequence
from typing import Any

from app.contract.bundle import Bundle, open_bundle
from app.contract.live import live_bundle
from app.contract.store import ModelStore
from app.engines.registry import EngineChoice
from training.data.dataset import Picture
from training.errors import DataError
from training.evaluation.acceptance import Against
from training.evaluation.bundle_score import score_bundle
from training.progress import Reporter


def find_baseline(store: ModelStore, name: str, against: Against) -> Bundle | None:
    """Return the version of that number, or the live one, None if there is none. Raises a BundleError."""
    return live_bundle(store, name) if against == "live" else open_bundle(store.path(name, against))


def score_baseline(
    baseline: Bundle, pictures: Sequence[Picture], *, engine: EngineChoice, cache: bool, reporter: Reporter
) -> dict[str, Any]:
    """Return the baseline's scores on those of the pictures whose class it knows, through its own preprocessing.

    Raises DataError if it knows none of the classes.
    """
    known = [picture for picture in pictures if picture.label in baseline.manifest.labels]
    if not known:
        raise DataError(f"Version {baseline.version} has none of the classes, so there is nothing to compare.")
    return score_bundle(baseline, known, engine=engine, cache=cache, reporter=reporter).scores.as_dict()
