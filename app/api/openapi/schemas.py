"""The JSON of the interface, as OpenAPI documents it. The routes build the same shapes as plain dictionaries, because
validating our own answers on every request would gain nothing; tests check that the two agree."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.contract.preprocessing import PreprocessingSpec
from app.engines.registry import EngineName


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorBody(_Schema):
    """The one shape of every error."""

    error: str = Field(description="What went wrong and what to do.")
    code: str = Field(description="Stable name of the error, for programs.")
    request_id: str = Field(description="The request's X-Request-ID, or a generated one; the log has the same.")


class ModelReference(_Schema):
    name: str
    version: int


class Familiarity(_Schema):
    """Shares of familiar pictures that look as strange as this one, or stranger: near 0, the picture is unlike them."""

    overall: float = Field(description="From both signals together; decides `unfamiliar`.")
    same_kind: float = Field(description="From the distance to the nearest class; low for another kind of picture.")
    clear_class: float = Field(description="From the energy of the logits; low for a picture between the classes.")


class Neighbour(_Schema):
    id: str = Field(description="The training picture's name within its data.")
    label: str
    similarity: float = Field(description="Cosine of the features' directions, -1 to 1.")
    thumbnail: str | None = Field(
        None, description="A JPEG of it in base64, if the model was trained with --keep-thumbnails."
    )


class LabelSet(_Schema):
    """A prediction set: for pictures like the held-out ones, it is expected to miss the true label at `error_rate`."""

    labels: list[str] = Field(description="Most probable first; may be empty with lac.")
    error_rate: float = Field(description="The expected share of pictures whose true label is not in the set.")
    method: Literal["lac", "aps"]
    held_out: int = Field(description="Number of held-out pictures that the set was calibrated on.")
    calibration: str = Field(description="The sha256 of the bundle's trust.npz, which holds that calibration.")


class Prediction(_Schema):
    """The answer to one picture."""

    decision: Literal["label", "unsure", "unfamiliar"] | None = Field(
        None,
        description="unfamiliar if `unfamiliar` is true; else unsure if the probability is below the minimum; else "
        "label. Present only if the request, the settings or the bundle set a minimum or a false-alarm "
        "rate.",
    )
    unfamiliar: bool | None = Field(
        None,
        description="Whether the picture is unlike the training pictures, at the false-alarm rate. Present only if "
        "the request, the settings or the bundle set a rate.",
    )
    familiarity: Familiarity | None = Field(None, description="Present only with details=familiarity.")
    neighbours: list[Neighbour] | None = Field(
        None, description="The nearest training pictures, nearest first. Present only with details=neighbours."
    )
    set: LabelSet | None = Field(None, description="Present only if the request asks for a set.")
    label: str = Field(description="The most probable label.")
    probability: float = Field(description="Its probability, 0 to 1.")
    probabilities: dict[str, float] = Field(
        description="Probability by label: every label in the model's order, or with top_k the best k, best first."
    )


class PredictionAnswer(Prediction):
    model: ModelReference

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "label": "7",
                    "probability": 0.9991,
                    "probabilities": {"7": 0.9991, "2": 0.0006},
                    "model": {"name": "mnist", "version": 1},
                }
            ]
        }
    )


class MapBox(_Schema):
    """The part of the upright picture that the map covers."""

    left: float = Field(description="Left edge, as a share of the picture's width; below 0 if the picture is padded.")
    top: float = Field(description="Upper edge, as a share of the picture's height.")
    width: float = Field(description="Width, as a share of the picture's width; above 1 if the picture is padded.")
    height: float = Field(description="Height, as a share of the picture's height.")


class ExplanationOfLabel(_Schema):
    label: str = Field(description="The explained label.")
    probability: float = Field(description="Its probability.")
    method: Literal["cam", "rise"] = Field(
        description="cam: exact, from the network itself. rise: sampled, by hiding parts of the picture."
    )
    masks: int = Field(description="rise: number of masked pictures that were classified; cam: 0.")
    box: MapBox
    map: list[list[float]] = Field(
        description="Rows from the top: how much each place contributes to the label. cam: the label's logit there; "
        "the mean over all places is its logit. rise: the label's mean probability while the place is "
        "visible."
    )


class ExplanationAnswer(PredictionAnswer):
    explanation: ExplanationOfLabel

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "label": "7",
                    "probability": 0.9991,
                    "probabilities": {"7": 0.9991, "2": 0.0006},
                    "model": {"name": "mnist", "version": 1},
                    "explanation": {
                        "label": "7",
                        "probability": 0.9991,
                        "method": "cam",
                        "masks": 0,
                        "box": {"left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0},
                        "map": [[6.2, 9.8, 7.1], [1.4, 8.3, 0.9], [0.2, 4.4, -1.6]],
                    },
                }
            ]
        }
    )


class BatchPrediction(Prediction):
    file: str | None = Field(description="The file name in the form.")


class BatchFailure(_Schema):
    file: str | None = Field(description="The file name in the form.")
    error: str
    code: str


class BatchAnswer(_Schema):
    predictions: list[BatchPrediction | BatchFailure] = Field(
        description="One entry for each picture, in the order sent; a picture that cannot be used fails alone."
    )
    model: ModelReference


class ModelHealth(ModelReference):
    engine: EngineName
    engine_reason: str = Field(description="Why this engine runs the model.")
    precision: Literal["f32", "bf16"]
    age_seconds: float = Field(description="Seconds since this version went live in the answering worker.")


class RefusedVersion(_Schema):
    name: str
    version: int | None = Field(description="null if the model's pin names no version.")
    code: str = Field(description="Code of the reason why the version was rejected; the log has the message.")


class Workers(_Schema):
    configured: int = Field(description="Configured number of worker processes.")
    ready: int = Field(
        description="Worker processes that accept requests; while workers are replaced, there may be one more."
    )


class ObjectStoreHealth(_Schema):
    kind: Literal["s3", "gs", "az"]
    reachable: bool = Field(
        description="Whether the last request to it was answered; models already pulled are served either way."
    )
    since: datetime = Field(description="Time of the last change of `reachable`.")


class Health(_Schema):
    status: Literal["ok"]
    workers: Workers
    models: list[ModelHealth]
    refused: list[RefusedVersion] = Field(
        description="Newer or pinned versions that failed their check and are therefore not served."
    )
    store: ObjectStoreHealth | None = Field(None, description="The bucket that holds the models; absent for a folder.")


class Live(_Schema):
    status: Literal["live"]


class VersionSummary(ModelReference):
    labels: list[str]
    metrics: dict[str, int | float]


class ModelSummary(VersionSummary):
    preview: VersionSummary | None = Field(
        None, description="Another version that answers requests which name it; absent if there is none."
    )


class ModelList(_Schema):
    models: list[ModelSummary]


class Serving(_Schema):
    """How this process runs a model, by its settings and by measurements when it was loaded."""

    engine: EngineName
    engine_reason: str = Field(description="Why this engine runs the model.")
    precision: Literal["f32", "bf16"]
    precision_reason: str = Field(description="Why the model runs in this precision.")
    threads: int = Field(description="Cores for one inference.")
    batch_milliseconds: dict[str, float] = Field(description="Milliseconds per batch, by batch size.")
    inference: Literal["event loop", "thread"] = Field(description="Where batches run.")
    inline_decode_pixels: int = Field(description="Pictures of at most this many pixels are decoded on the event loop.")


class ModelDetail(ModelSummary):
    serving: Serving
    created_at: str
    preprocessing: PreprocessingSpec
    training: dict[str, JsonValue]
    libraries: dict[str, str]
    card: str = Field(description="The model card, Markdown.")


ERROR_RESPONSES: dict[int, str] = {
    400: "The request is malformed.",
    401: "No API key, or a wrong one.",
    403: "The settings do not allow it.",
    404: "Unknown path or model.",
    405: "The path exists, but not with this method.",
    408: "The request did not arrive in time.",
    413: "Too many bytes or pixels.",
    415: "Not a picture, not in a format that is accepted, or in a content coding that is not.",
    422: "A picture that cannot be decoded.",
    431: "The request line and headers are too long.",
    500: "The inference failed.",
    503: "Overloaded or stopping; try again after Retry-After seconds.",
    504: "The deadline passed.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these statuses, all of the one shape.

    The shape is a reference to `ErrorBody`, which `app.api.openapi.document` adds. FastAPI would build a validator for
    each status of each route from a model: half of the time that the application takes to build.
    """
    schema = {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}
    return {
        status: {"description": ERROR_RESPONSES[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }
