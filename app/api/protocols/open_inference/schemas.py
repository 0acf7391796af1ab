"""The protocol's JSON, as OpenAPI documents it; the routes build the same shapes as plain dictionaries."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openapi.examples import PICTURE_IN_BASE64


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ServerMetadata(_Schema):
    name: str
    version: str
    extensions: list[str] = Field(description="The protocol extensions that are implemented.")


class ServerLive(_Schema):
    live: Literal[True]


class ServerReady(_Schema):
    live: Literal[True]
    ready: Literal[True]


class ModelReady(_Schema):
    name: str
    ready: Literal[True]


class TensorMetadata(_Schema):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 for any size.")


class ModelMetadata(_Schema):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata] = Field(
        description="The network's input tensor; encoded pictures are sent under the same name as BYTES [-1]."
    )
    outputs: list[TensorMetadata]


class Duration(_Schema):
    count: int
    ns: int = Field(description="Total nanoseconds.")


class InferenceStatistics(_Schema):
    success: Duration = Field(description="Requests.")
    fail: Duration = Field(description="Requests.")
    queue: Duration = Field(description="Pictures that waited in the queue.")
    compute_input: Duration = Field(description="Pictures that were decoded.")
    compute_infer: Duration = Field(description="Batches.")
    compute_output: Duration = Field(description="Not measured: 0.")


class BatchStatistics(_Schema):
    batch_size: int = Field(description="Batch size that ran, including padding.")
    compute_input: Duration = Field(description="Not measured by size: 0.")
    compute_infer: Duration
    compute_output: Duration = Field(description="Not measured: 0.")


class VersionStatistics(_Schema):
    name: str
    version: str
    last_inference: int = Field(description="Unix time in milliseconds; 0 if never.")
    inference_count: int = Field(description="Pictures classified.")
    execution_count: int = Field(description="Batches run.")
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class ModelStatistics(_Schema):
    model_stats: list[VersionStatistics]


class IndexEntry(_Schema):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why the version is not served; empty if it is.")


class Changed(_Schema):
    """Empty: status 200 is the whole answer."""


CHANGE_REQUEST: dict[str, Any] = {"type": "object", "properties": {"parameters": {"type": "object"}}}
INDEX_REQUEST: dict[str, Any] = {
    "type": "object",
    "properties": {"ready": {"type": "boolean", "description": "Only what is served."}},
}


INFER_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Returned with the answer."},
        "parameters": {
            "type": "object",
            "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds; 0 for the service's own."},
                "binary_data_output": {"type": "boolean"},
                "min_probability": {
                    "type": "number",
                    "description": "As for /predict; it determines the output decision.",
                },
                "false_alarms": {
                    "type": "number",
                    "description": "As for /predict; it determines the output decision.",
                },
            },
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
                    "shape": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 8,
                        "items": {"type": "integer", "minimum": 0},
                    },
                    "parameters": {
                        "type": "object",
                        "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
                    },
                    "data": {
                        "type": "array",
                        "items": {},
                        "description": "Base64 strings for BYTES, whole numbers 0 to 255 for UINT8; flat or nested.",
                    },
                },
            },
        },
        "outputs": {
            "type": "array",
            "maxItems": 3,
            "description": "If left out, the probabilities. Models with data on familiar pictures also have "
            "familiarity and decision.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "classification": {"type": "integer", "minimum": 0},
                            "binary_data": {"type": "boolean"},
                        },
                    },
                },
            },
        },
    },
    "example": {
        "id": "42",
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [PICTURE_IN_BASE64]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 3}}],
    },
}
"""What the JSON of an inference request may hold; other parameters are ignored."""


class InferOutput(_Schema):
    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = Field(
        None,
        description="Flat. FP32: the probabilities of each picture, or its familiarity: overall, same_kind and "
        "clear_class; BYTES: 'probability:index:label', or its decision.",
    )


class InferAnswer(_Schema):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]
