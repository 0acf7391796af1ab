"""The JSON of the interface, as OpenAPI documents it; the routes build the same shapes by themselves."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openapi.examples import PICTURE_IN_BASE64


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class VersionError(_Schema):
    error_code: Literal["OK"]
    error_message: str


class VersionStatus(_Schema):
    version: str
    state: Literal["AVAILABLE"]
    status: VersionError


class ModelStatus(_Schema):
    model_version_status: list[VersionStatus] = Field(description="The live version, or the named one.")


class ModelSpec(_Schema):
    name: str
    signature_name: str
    version: str


class SignatureMetadata(_Schema):
    model_spec: ModelSpec
    metadata: dict[str, Any] = Field(description="`signature_def`, the SavedModel's signature.")


class Predictions(_Schema):
    predictions: list[list[float]] = Field(description="The probabilities of each instance, in the labels' order.")


class Outputs(_Schema):
    outputs: list[list[float]] = Field(description="The same, for a request in column format ('inputs').")


# Not a tuple: in OpenAPI that is prefixItems, which not every reader of such documents knows.
_LabelAndProbability = Annotated[list[str | float], Field(min_length=2, max_length=2)]


class Classifications(_Schema):
    results: list[list[_LabelAndProbability]] = Field(description="For each example, every label with its probability.")


_BASE64 = {
    "type": "object",
    "required": ["b64"],
    "properties": {"b64": {"type": "string", "description": "An encoded picture, in base64 or as a data URL."}},
}
_PIXELS = {"type": "array", "items": {}, "description": "Whole numbers 0 to 255, nested as the network's input is."}
_PICTURE = {"anyOf": [_BASE64, _PIXELS, {"type": "object", "properties": {"image": {"anyOf": [_BASE64, _PIXELS]}}}]}
_SIGNATURE = {"type": "string", "description": "serving_default, which is the only one and need not be named."}

PREDICT_REQUEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "signature_name": _SIGNATURE,
        "instances": {"type": "array", "items": _PICTURE, "description": "Row form: one picture after another."},
        "inputs": {
            "anyOf": [{"type": "array", "items": _PICTURE}, {"type": "object"}],
            "description": "Column form: one tensor of all pictures, or that under the input's name.",
        },
    },
    "example": {"instances": [{"b64": PICTURE_IN_BASE64}]},
}

CLASSIFY_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["examples"],
    "properties": {
        "signature_name": _SIGNATURE,
        "context": {"type": "object", "description": "Features that all examples share."},
        "examples": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": dict.fromkeys(("image", "image_bytes", "image/encoded"), _BASE64),
            },
        },
    },
    "example": {"examples": [{"image": {"b64": PICTURE_IN_BASE64}}]},
}
