"""Parse predict and classify requests of TensorFlow Serving's interface. It knows nothing of HTTP.

A picture is a nested list of pixels in the shape that the network takes, or an encoded picture as {"b64": "…"}.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.api.bodies.base64 import decode_base64
from app.api.protocols.open_inference.tensors import Pictures
from app.contract.bundle import Manifest
from app.errors import MalformedRequest

CheckCount = Callable[[int], None]

_BASE64 = "b64"
_ENCODED_NAMES = ("image_bytes", "image/encoded")
"""TensorFlow's conventional name for encoded pictures, accepted besides the name of the signature's input."""


class PredictRequest(NamedTuple):
    """`columns` is whether the request is in column form (`inputs`), and is answered in it (`outputs`)."""

    pictures: Pictures
    columns: bool


class Reader:
    """Reads the parsed JSON of requests to the model of a manifest. Every method raises MalformedRequest.

    `check_count` is called before pictures are parsed, and raises if there are too many.
    """

    def __init__(self, manifest: Manifest, *, check_count: CheckCount) -> None:
        self._signature = manifest.signature
        self._shape = manifest.preprocessing.shape
        self._check_count = check_count

    def predict(self, message: Any) -> PredictRequest:
        """Parse a predict request, in row form (`instances`) or in column form (`inputs`)."""
        body = self._body(message)
        columns = "inputs" in body
        if columns == ("instances" in body):
            raise MalformedRequest(
                "Send the pictures either as 'instances' (row format) or as 'inputs' (column format)."
            )
        if columns:
            where, values = "'inputs'", body["inputs"]
            if isinstance(values, dict):
                values = self._named(values, where)
        else:
            where, values = "'instances'", body["instances"]
            if isinstance(values, list):
                values = [self._instance(value, f"Instance {index}") for index, value in enumerate(values)]
        return PredictRequest(self._pictures(values, where), columns)

    def classify(self, message: Any) -> Pictures:
        """Return the pictures of a classify request: the one feature of each of its `examples`."""
        body = self._body(message)
        examples, context = body.get("examples"), body.get("context", {})
        if not isinstance(examples, list) or not isinstance(context, dict):
            raise MalformedRequest("A classify request must have a list 'examples' and may have an object 'context'.")
        values = []
        for index, example in enumerate(examples):
            if not isinstance(example, dict):
                raise MalformedRequest(f"Example {index}, counted from 0, is not an object of features.")
            if repeated := context.keys() & example.keys():
                raise MalformedRequest(f"Example {index} has '{min(repeated)}', which is in 'context', too.")
            value = self._named({**context, **example}, f"Example {index}")
            if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
                value = value[0]  # a feature is a list of values
            values.append(value)
        return self._pictures(values, "'examples'")

    def _body(self, message: Any) -> Mapping[str, Any]:
        if not isinstance(message, dict):
            raise MalformedRequest("The body must be a JSON object. /docs describes its fields.")
        name = message.get("signature_name", "")
        if name not in ("", self._signature.name):
            raise MalformedRequest(
                f"There is no signature {name!r:.60}; the only one is '{self._signature.name}', and it is the default."
            )
        return message

    def _instance(self, value: Any, where: str) -> Any:
        """Return the value of an instance that is given by its input's name, or directly."""
        return self._named(value, where) if isinstance(value, dict) and _BASE64 not in value else value

    def _named(self, values: Mapping[str, Any], where: str) -> Any:
        """Return the one value of an object, whose key must be the input's name."""
        names = (self._signature.input.name, *_ENCODED_NAMES)
        if len(values) != 1 or next(iter(values)) not in names:
            sent = ", ".join(f"'{name[:40]}'" for name in list(values)[:8]) or "none"
            raise MalformedRequest(f"{where}: the model has one input, '{names[0]}'; the request names: {sent}.")
        return next(iter(values.values()))

    def _pictures(self, values: Any, where: str) -> Pictures:
        if not isinstance(values, list):
            raise MalformedRequest(f"{where}: send a list of pictures, each a nested list or {{'b64': …}}.")
        self._check_count(len(values))
        if any(isinstance(value, dict) for value in values):
            return [_decoded(value, f"{where}: picture {index}") for index, value in enumerate(values)]
        return _array(values, self._shape, where)


def _decoded(value: Any, where: str) -> bytes:
    """Return the bytes of {"b64": "…"}."""
    text = value.get(_BASE64) if isinstance(value, dict) and len(value) == 1 else None
    try:
        return decode_base64(text)
    except (TypeError, ValueError):
        raise MalformedRequest(
            f"{where} is not {{'b64': …}} with base64 (standard or URL-safe, or a data URL of it). All pictures come "
            "in the same form."
        ) from None


def _array(values: list[Any], shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """Return nested lists of pixels as an array (N, H, W, C). Grey pictures may come without their last dimension."""
    try:
        array = np.array(values)
    except ValueError:
        raise MalformedRequest(f"{where}: the pictures are not nested evenly; the model takes {list(shape)}.") from None
    if array.shape[1:] != shape and (*array.shape[1:], 1) != shape:
        raise MalformedRequest(
            f"{where}: the pictures have the shape {list(array.shape[1:])}; the model takes {list(shape)}. "
            "Bring them into that shape, or send them encoded, as {'b64': …}."
        )
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise MalformedRequest(f"{where}: pixels must be whole numbers from 0 to 255.")
    return array.astype(np.uint8).reshape(-1, *shape)
