"""Evaluate a published bundle on labelled data: in process through `app.engines`, or a running service over HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.client import Failure, ServiceClient
from app.contract.bundle import Bundle
from app.engines.registry import EngineChoice
from app.errors import ServiceError
from training.data.dataset import Picture
from training.data.tensors import Tensors
from training.errors import DataError
from training.evaluation.bundle_score import score_bundle, trained_loss
from training.evaluation.calibration.figures import before_and_after
from training.evaluation.calibration.temperature import recorded_temperature
from training.evaluation.score import Scores, score
from training.progress import Reporter


@dataclass(frozen=True)
class Agreement:
    """How a service's answers compare with the same bundle in process, picture by picture."""

    pictures: int
    same_label: int
    max_probability_difference: float


@dataclass(frozen=True)
class BundleEvaluation:
    scores: Scores
    calibration: dict[str, Any]
    """The figures of `before_and_after`."""
    engine: str
    agreement: Agreement | None
    pictures: tuple[Picture, ...]
    """The evaluated pictures, without skipped ones."""


def evaluate_bundle(
    bundle: Bundle,
    pictures: Sequence[Picture],
    *,
    engine: EngineChoice,
    url: str | None,
    on_bad_image: Literal["skip", "fail"],
    groups: Mapping[str, str],
    reporter: Reporter,
    cache: bool = True,
) -> BundleEvaluation:
    """Score a bundle on labelled pictures; with `url`, score that service and compare the two.

    `groups` has the group of each picture by id, for figures by group.
    """
    here = score_bundle(bundle, pictures, engine=engine, on_bad_image=on_bad_image, cache=cache, reporter=reporter)
    tensors = here.tensors
    found, scores, answered_by, agreement = here.probabilities, here.scores, str(here.engine), None
    if url is not None:
        found = _ask_service(url, bundle, tensors, reporter)
        scores = score(found, tensors.targets, bundle.manifest.labels, loss=trained_loss(bundle))
        answered_by = f"the service at {url}"
        agreement = Agreement(
            pictures=len(found),
            same_label=int((here.probabilities.argmax(axis=1) == found.argmax(axis=1)).sum()),
            max_probability_difference=float(np.abs(here.probabilities - found).max()),
        )
    return BundleEvaluation(
        scores=scores,
        calibration=before_and_after(
            found,
            tensors.targets,
            temperature=recorded_temperature(bundle.manifest.training),
            groups=[groups.get(picture.id) for picture in tensors.pictures],
        ),
        engine=answered_by,
        agreement=agreement,
        pictures=tensors.pictures,
    )


def _ask_service(url: str, bundle: Bundle, tensors: Tensors, reporter: Reporter) -> NDArray[np.float32]:
    """Return a service's probabilities (N, K) for the encoded pictures."""
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
                    raise ServiceError(f"{url} rejected {picture.id}: {outcome.error}")
                rows.append([outcome.probabilities[label] for label in labels])
                advance(1, "")
    return np.array(rows, np.float32)
