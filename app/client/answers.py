"""The answers of a service as typed objects. Other JSON raises ServiceError."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelReference:
    """The model that answered, and its version."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Familiarity:
    """The share of familiar pictures that look as strange as this one or stranger; near 0, the picture is
    unfamiliar."""

    overall: float
    same_kind: float
    clear_class: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training picture that is similar to the one that was sent.

    `thumbnail` is a JPEG in base64, if the bundle keeps any.
    """

    id: str
    label: str
    similarity: float
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels, the most probable first, that miss the truth for the share `error_rate` of pictures.

    They are calibrated on `held_out` pictures; `calibration` is the sha256 of the file with that calibration.
    """

    labels: tuple[str, ...]
    error_rate: float
    method: str
    held_out: int
    calibration: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one picture. `probabilities` holds every label in the model's order, or the best, best first.

    `decision` is "label"; "unsure" if the probability is below the minimum; or "unfamiliar" if the picture is unlike
    those that were learned. `decision`, `unfamiliar`, `familiarity`, `neighbours` and `set` are None unless they were
    requested.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    model: ModelReference
    decision: str | None = None
    unfamiliar: bool | None = None
    familiarity: Familiarity | None = None
    neighbours: tuple[Neighbour, ...] | None = None
    set: LabelSet | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A heat map: how much each place of a picture contributes to `label`.

    `map` has the rows of the map from the top. It covers the part `box` of the upright picture: left, top, width and
    height as shares of the picture's size. `method` is "cam", or "rise" with the number of `masks`. `prediction` is the
    answer to the picture.
    """

    label: str
    probability: float
    method: str
    masks: int
    box: Mapping[str, float]
    map: Sequence[Sequence[float]]
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one picture of many has no answer: a sentence for people, and its stable name for programs."""

    error: str
    code: str


Outcome = Prediction | Failure


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version that is served, with its labels in order and its headline metrics.

    `preview` is another version of the model, if one is in preview: it answers requests that name it.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    metrics: Mapping[str, float]
    preview: "ServedModel | None" = None


def prediction(body: Any) -> Prediction:
    """Return `PredictionAnswer` of the interface. Like all below, raises LookupError or TypeError if it is not one."""
    return _prediction(body, _reference(body["model"]))


def explanation(body: Any) -> Explanation:
    """Return `ExplanationAnswer` of the interface."""
    found = body["explanation"]
    label, probability, method, masks = found["label"], found["probability"], found["method"], found["masks"]
    return Explanation(label, probability, method, masks, found["box"], found["map"], prediction(body))


def outcomes(body: Any) -> list[Outcome]:
    """Return the entries of `BatchAnswer` of the interface."""
    model = _reference(body["model"])
    return [
        Failure(entry["error"], entry["code"]) if "error" in entry else _prediction(entry, model)
        for entry in body["predictions"]
    ]


def served_model(body: Any) -> ServedModel:
    """Return `ModelSummary` of the interface, or the same fields of `ModelDetail`."""
    preview = None if body.get("preview") is None else served_model(body["preview"])
    return ServedModel(body["name"], body["version"], tuple(body["labels"]), body["metrics"], preview)


def served_models(body: Any) -> list[ServedModel]:
    """Return the entries of `ModelList` of the interface."""
    return [served_model(entry) for entry in body["models"]]


def _prediction(body: Any, model: ModelReference) -> Prediction:
    found, near, labels = body.get("familiarity"), body.get("neighbours"), body.get("set")
    return Prediction(
        body["label"],
        body["probability"],
        body["probabilities"],
        model,
        body.get("decision"),
        body.get("unfamiliar"),
        None if found is None else Familiarity(found["overall"], found["same_kind"], found["clear_class"]),
        None if near is None else tuple(map(_neighbour, near)),
        None if labels is None else _label_set(labels),
    )


def _neighbour(body: Any) -> Neighbour:
    return Neighbour(body["id"], body["label"], body["similarity"], body.get("thumbnail"))


def _label_set(body: Any) -> LabelSet:
    return LabelSet(tuple(body["labels"]), body["error_rate"], body["method"], body["held_out"], body["calibration"])


def _reference(body: Any) -> ModelReference:
    return ModelReference(body["name"], body["version"])
