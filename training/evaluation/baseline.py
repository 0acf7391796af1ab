"""The version that a new one is compared with: which it is, and how it does on the same pictures."""

import gzip
from collections.abc import Sequence
from typing import Any

from app.contract.bundle import Bundle, open_bundle
from app.contract.store import ModelStore
from app.engines.loading import load_model
from app.engines.registry import EngineChoice
from app.errors import BundleError
from training.bundling.export import SPLIT_FILE
from training.data.dataset import Picture
from training.data.split import read_splits
from training.data.tensors import load_tensors
from training.errors import DataError
from training.evaluation.acceptance import Against
from training.evaluation.score import predict_all, score
from training.progress import Reporter


def rival_of(store: ModelStore, name: str, against: Against) -> Bundle | None:
    """Return the version of that number; with "live" the pinned one, else the newest that is whole, None without any.

    Raises a BundleError.
    """
    if against != "live":
        return open_bundle(store.path(name, against))
    pinned = store.pinned(name)
    if pinned is not None:
        return open_bundle(store.path(name, pinned))
    damaged = None
    for version in reversed(store.versions(name)):
        try:
            return open_bundle(store.path(name, version))
        except BundleError as exc:
            damaged = damaged or exc
    if damaged is not None:
        raise damaged
    return None


def score_rival(
    rival: Bundle, pictures: Sequence[Picture], *, engine: EngineChoice, reporter: Reporter
) -> dict[str, Any]:
    """Return the scores of the rival on those of the pictures whose class it knows, through its own preprocessing.

    Raises DataError where it knows none of them.
    """
    labels = rival.manifest.labels
    known = [picture for picture in pictures if picture.label in labels]
    if not known:
        raise DataError(f"Version {rival.version} knows none of the classes, so there is nothing to compare.")
    loaded = load_model(rival.path, engine=engine)
    try:
        tensors = load_tensors(known, rival.manifest.preprocessing, labels, on_bad_image="fail")
        with reporter.task(f"measuring version {rival.version} on the same pictures", len(known)) as advance:
            found = predict_all(loaded.engine.predict, tensors.images, lambda count: advance(count, ""))
    finally:
        loaded.engine.close()
    return score(found, tensors.targets, labels, loss="crossentropy").as_dict()


def learned_pictures(rival: Bundle, origin: str, pictures: Sequence[Picture]) -> int:
    """Return how many of the pictures of the data `origin` the rival was trained on, as far as its record says."""
    recorded = rival.path / SPLIT_FILE
    if rival.manifest.training.get("data") != origin or not recorded.is_file():
        return 0
    try:
        splits = read_splits(gzip.decompress(recorded.read_bytes()).decode())
    except (DataError, OSError, ValueError, EOFError):
        return 0
    return sum(splits.get(picture.id) == "train" for picture in pictures)
