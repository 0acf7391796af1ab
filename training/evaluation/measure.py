"""Measure a published bundle on labelled data: in process through `app.engines`, or a running service over HTTP."""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.client import Failure, ServiceClient
from app.contract.bundle import Bundle
from app.engines.loading import load_model
from app.engines.registry import EngineChoice
from app.errors import ServiceError
from training.bundling.export import SPLIT_FILE
from training.data.dataset import Dataset, Picture, Split
from training.data.split import recorded_pictures
from training.data.tensor_cache import TensorCache
from training.data.tensors import Tensors, load_tensors
from training.errors import DataError
from training.evaluation.calibration.figures import before_and_after
from training.evaluation.calibration.temperature import recorded_temperature
from training.evaluation.score import Scores, predict_all, score
from training.progress import Reporter


@dataclass(frozen=True)
class Agreement:
    """How a service's answers compare with the same bundle in process, picture by picture."""

    pictures: int
    same_label: int
    max_probability_difference: float


@dataclass(frozen=True)
class Measurement:
    scores: Scores
    calibration: dict[str, Any]
    """What `before_and_after` finds."""
    engine: str
    agreement: Agreement | None
    pictures: tuple[Picture, ...]
    """Those measured on: without the ones that were skipped."""


def choose_pictures(dataset: Dataset, bundle: Bundle, split: Split | Literal["all"]) -> tuple[list[Picture], str]:
    """Return the pictures to measure on, and in words which they are.

    `split` is the one on record in the bundle where the data is what it was trained on, else the source's own. Data
    that has neither is measured whole. Raises DataError where it has other splits than that, or has lost pictures.
    """
    if split == "all":
        return list(dataset.pictures), "all pictures"
    marked = [picture for picture in dataset.pictures if picture.split == split]
    recorded = bundle.path / SPLIT_FILE
    if recorded.is_file() and bundle.manifest.training.get("data") == dataset.origin:
        try:
            pictures = recorded_pictures(dataset, gzip.decompress(recorded.read_bytes()).decode(), split)
        except DataError:
            if not marked:
                raise
        else:
            if pictures:
                return pictures, f"the {split} pictures on record in the bundle"
    if marked:
        return marked, f"the {split} pictures of the source"
    if any(picture.split is not None for picture in dataset.pictures):
        raise DataError(f"{dataset.origin} has no {split} pictures. Give --split train, or --split all.")
    return list(dataset.pictures), "all pictures (the data has no split, and is not what the model was trained on)"


def measure(
    path: Path,
    pictures: Sequence[Picture],
    *,
    engine: EngineChoice,
    url: str | None,
    on_bad_image: Literal["skip", "fail"],
    groups: Mapping[str, str],
    reporter: Reporter,
    cache: bool = True,
) -> Measurement:
    """Score the bundle at `path` on labelled pictures; with `url`, score that service and compare the two.

    `groups` says by its id whose a picture is, for figures by group.
    """
    loaded = load_model(path, engine=engine)
    manifest = loaded.bundle.manifest
    with reporter.task("reading pictures", len(pictures)) as advance:
        tensors = load_tensors(
            pictures,
            manifest.preprocessing,
            manifest.labels,
            on_bad_image=on_bad_image,
            advance=lambda count: advance(count, ""),
            cache=TensorCache.of_user(keeps=cache, say=reporter.say),
        )
    with reporter.task(f"classifying on {loaded.engine.name}", len(tensors.images)) as advance:
        here = predict_all(loaded.engine.predict, tensors.images, lambda count: advance(count, ""))
    recipe = manifest.training.get("recipe")
    loss: Literal["crossentropy", "mse"] = (
        "mse" if isinstance(recipe, dict) and recipe.get("loss") == "mse" else "crossentropy"
    )
    found, agreement = here, None
    if url is not None:
        found = _ask_service(url, loaded.bundle, tensors, reporter)
        agreement = Agreement(
            pictures=len(here),
            same_label=int((here.argmax(axis=1) == found.argmax(axis=1)).sum()),
            max_probability_difference=float(np.abs(here - found).max()),
        )
    return Measurement(
        scores=score(found, tensors.targets, manifest.labels, loss=loss),
        calibration=before_and_after(
            found,
            tensors.targets,
            temperature=recorded_temperature(manifest.training),
            groups=[groups.get(picture.id) for picture in tensors.pictures],
        ),
        engine=loaded.engine.name if url is None else f"the service at {url}",
        agreement=agreement,
        pictures=tensors.pictures,
    )


def _ask_service(url: str, bundle: Bundle, tensors: Tensors, reporter: Reporter) -> NDArray[np.float32]:
    """Return the probabilities (N, K) that a service gives the encoded pictures."""
    labels = bundle.manifest.labels
    rows = []
    with ServiceClient(url) as client:
        served = client.model(bundle.name)
        if (served.version, served.labels) != (bundle.version, labels):
            raise DataError(
                f"{url} serves {bundle.name} version {served.version}, not the version {bundle.version} measured "
                "here. Name the served one with --version."
            )
        with reporter.task("asking the service", len(tensors.pictures)) as advance:
            encoded = (picture.encoded() for picture in tensors.pictures)
            for picture, outcome in zip(tensors.pictures, client.predict_many(encoded, model=bundle.name), strict=True):
                if isinstance(outcome, Failure):
                    raise ServiceError(f"{url} refused {picture.id}: {outcome.error}")
                rows.append([outcome.probabilities[label] for label in labels])
                advance(1, "")
    return np.array(rows, np.float32)
