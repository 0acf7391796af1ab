"""Parse inference requests of the protocol. It knows nothing of HTTP: a body is bytes, a header a number."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from app.api.protocols.open_inference.tensors import (
    Pictures,
    array_from_binary,
    array_from_json,
    encoded_from_binary,
    encoded_from_json,
    pictures_of,
    shape_of,
)
from app.contract.answer_options import AnswerOptions
from app.contract.bundle import Manifest
from app.contract.header import read_header
from app.contract.trust import TRUST
from app.errors import ImageError, MalformedRequest, UnsupportedFormat

ParseJson = Callable[[bytes], Any]
CheckCount = Callable[[int], None]


FAMILIARITY = "familiarity"
DECISION = "decision"
JUDGED = (FAMILIARITY, DECISION)
"""Outputs besides the probabilities, of models whose bundle has data on familiar pictures.

They are not in the metadata: a request that names no output gets all outputs that are listed there, and load generators
request all of them.
"""
_NOTHING_ELSE = AnswerOptions()


class RequestedOutput(NamedTuple):
    """The requested form of an output: JSON or `binary` data; for probabilities, `classes` is the number of best
    labels, 0 for all probabilities."""

    name: str
    binary: bool = False
    classes: int = 0


class InferRequest(NamedTuple):
    """`id` is empty if none was given, `timeout_s` None. `options` are for outputs other than the probabilities."""

    pictures: Pictures
    outputs: tuple[RequestedOutput, ...]
    id: str = ""
    timeout_s: float | None = None
    options: AnswerOptions = _NOTHING_ELSE

    def asks_for(self, name: str) -> bool:
        return any(output.name == name for output in self.outputs)

    @property
    def is_judged(self) -> bool:
        """Whether an output other than the probabilities is requested. No output is requested twice."""
        outputs = self.outputs
        return len(outputs) > 1 or outputs[0].name in JUDGED


class Reader:
    """Reads the requests to the model of a manifest.

    `check_count` is called before pictures are parsed, and raises if there are too many.
    """

    def __init__(self, manifest: Manifest, *, parse_json: ParseJson, check_count: CheckCount) -> None:
        self._input_name = manifest.signature.input.name
        self._where = f"Input '{self._input_name}'"
        self._outputs = (manifest.signature.output.name, *(JUDGED if TRUST in manifest.files else ()))
        self._unnamed = {
            binary: (RequestedOutput(self._outputs[0], binary),) for binary in (False, True)
        }  # by whether it is binary: what is answered if no output is named
        self._shape = manifest.preprocessing.shape
        self._parse_json = parse_json
        self._check_count = check_count

    def from_body(self, body: bytes, json_length: int | None) -> InferRequest:
        """Parse a body whose first `json_length` bytes are JSON; None means all of it.

        With 0 the whole body is one tensor: pixels if they make whole pictures, else one encoded picture. Raises
        MalformedRequest, or UploadTooLarge.
        """
        if json_length == 0:
            return InferRequest(self._raw(body), self._unnamed[True])
        if json_length is not None and json_length > len(body):
            raise MalformedRequest(
                f"Inference-Header-Content-Length says {json_length:,} bytes of JSON; the body has {len(body):,}."
            )
        message = self._parse_json(body if json_length is None else body[:json_length])
        if not isinstance(message, dict):
            raise MalformedRequest("The JSON of an inference request must be an object with 'inputs'.")
        parameters = parameters_of(message, "The request")
        outputs = self._requested(message, parameters)
        return InferRequest(
            self._input(message, b"" if json_length is None else body[json_length:]),
            outputs,
            _id_of(message),
            timeout_of(parameters),
            answer_options_of(outputs, parameters),
        )

    def check_input(self, names: Sequence[str]) -> None:
        """Raise MalformedRequest unless there is one input, with the name of the model's input."""
        name = self._input_name
        if len(names) != 1 or names[0] != name:
            sent = ", ".join(f"'{sent[:40]}'" for sent in names[:8]) or "none"
            raise MalformedRequest(f"The model has one input, '{name}'; the request has: {sent}.")

    def outputs(
        self, asked: Sequence[tuple[str, Mapping[str, Any]]], binary: Callable[[Mapping[str, Any]], bool]
    ) -> tuple[RequestedOutput, ...]:
        """Return the requested outputs by their names and parameters; if there are none, the probabilities.

        `binary` decides by an output's parameters whether it is to be binary. Raises MalformedRequest.
        """
        if not asked:
            return self._unnamed[binary({})]
        names = [name for name, _ in asked]
        if len(set(names)) < len(names) or not set(names) <= set(self._outputs):
            has = ", ".join(f"'{name}'" for name in self._outputs)
            said = f"one output, {has}" if len(self._outputs) == 1 else f"the outputs {has}"
            listed = ", ".join(f"'{name[:40]}'" for name in names[:8])
            raise MalformedRequest(f"The model has {said}; the request asks for: {listed}.")
        found = [RequestedOutput(name, binary(own), classes_of(own)) for name, own in asked]
        if any(output.classes and output.name != self._outputs[0] for output in found):
            raise MalformedRequest(f"'classification' is a parameter of the output '{self._outputs[0]}' alone.")
        return tuple(found)

    def pictures(
        self,
        datatype: object,
        shape: tuple[int, ...],
        *,
        encoded: Callable[[int, str], list[bytes]],
        array: Callable[[str], Pictures],
    ) -> Pictures:
        """Return the pictures of an input; `encoded` or `array` parses its data, by datatype."""
        where = self._where
        if datatype == "BYTES":
            count = pictures_of(shape, where)
            self._check_count(count)
            return encoded(count, where)
        if datatype == "UINT8":
            self._check_count(shape[0])
            return array(where)
        raise MalformedRequest(
            f"{where}: the datatype is {datatype!r:.40}; the model takes BYTES for encoded pictures, "
            "or UINT8 for preprocessed ones."
        )

    def _input(self, message: Mapping[str, Any], binary: bytes) -> Pictures:
        inputs = _objects(message, "inputs")
        self.check_input([str(each.get("name")) for each in inputs])
        sent = inputs[0]
        where = self._where
        shape = shape_of(sent.get("shape"), where)
        data = sent.get("data")
        size = parameters_of(sent, where).get("binary_data_size")
        if size is None:
            if binary:
                raise MalformedRequest(
                    f"{where}: {len(binary):,} bytes follow the JSON, but 'binary_data_size' is missing."
                )
            return self.pictures(
                sent.get("datatype"),
                shape,
                encoded=lambda _, where: encoded_from_json(data, shape, where),
                array=lambda where: array_from_json(data, shape, where),
            )
        if data is not None:
            raise MalformedRequest(f"{where}: it has both 'data' and 'binary_data_size'. Send only one of them.")
        if type(size) is not int or size != len(binary):
            raise MalformedRequest(
                f"{where}: 'binary_data_size' is {size!r:.40}, but {len(binary):,} bytes follow the JSON. The header "
                "Inference-Header-Content-Length is the length of the JSON."
            )
        return self.pictures(
            sent.get("datatype"),
            shape,
            encoded=lambda count, where: encoded_from_binary(binary, count, where),
            array=lambda where: array_from_binary(binary, shape, where),
        )

    def _requested(self, message: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[RequestedOutput, ...]:
        of_all = _flag(parameters, "binary_data_output")
        outputs = [] if message.get("outputs") is None else _objects(message, "outputs")

        def binary(own: Mapping[str, Any]) -> bool:
            return _flag(own, "binary_data") if own.get("binary_data") is not None else of_all

        named = [(str(each.get("name")), each) for each in outputs]
        return self.outputs([(name, parameters_of(each, f"Output '{name[:40]}'")) for name, each in named], binary)

    def _raw(self, body: bytes) -> Pictures:
        size = prod(self._shape)
        count, rest = divmod(len(body), size)
        if count and not rest and not _is_a_picture_by_all_signs(body):
            self._check_count(count)
            return array_from_binary(body, (count, *self._shape), "The body")
        try:
            read_header(body)
        except UnsupportedFormat:
            raise MalformedRequest(
                f"The body is not an encoded picture, and its {len(body):,} bytes are not a multiple of {size:,}, the "
                f"bytes of a picture of {'x'.join(map(str, self._shape))} as the model takes it."
            ) from None
        except ImageError:
            pass  # its errors are reported later, when it is parsed
        return [body]


def _is_a_picture_by_all_signs(body: bytes) -> bool:
    """Return whether bytes that could be pixels are an encoded picture. A short signature alone might be pixels."""
    return (
        body.startswith((b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*"))
        or (body.startswith(b"RIFF") and body[8:12] == b"WEBP")
        or (body.startswith(b"\xff\xd8\xff") and body.endswith(b"\xff\xd9"))
        or (body.startswith(b"BM") and int.from_bytes(body[2:6], "little") == len(body))
    )


def parameters_of(message: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the parameters of a message, a tensor or an output. Raises MalformedRequest."""
    parameters = message.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"{where}: 'parameters' must be an object.")
    check_parameters(parameters)
    return parameters


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise MalformedRequest if they request unsupported features."""
    if "shared_memory_region" in parameters:
        raise MalformedRequest("Shared memory is not supported. Send the data with the request.")


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Return the seconds of the parameter `timeout`, which is in microseconds, 0 for none. Raises MalformedRequest."""
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if type(timeout) is not int or timeout < 0:
        raise MalformedRequest(f"'timeout' is {timeout!r:.40}; send a whole number of microseconds.")
    return timeout / 1e6 if timeout else None


def classes_of(parameters: Mapping[str, Any]) -> int:
    """Return the number of best labels requested with `classification`, 0 for none. Raises MalformedRequest."""
    classes = parameters.get("classification")
    if classes is None:
        return 0
    if type(classes) is not int or classes < 0:
        raise MalformedRequest(f"'classification' is {classes!r:.40}; send a whole number of labels.")
    return classes


def answer_options_of(outputs: Sequence[RequestedOutput], parameters: Mapping[str, Any]) -> AnswerOptions:
    """Return the options of the outputs other than the probabilities. Raises MalformedRequest."""
    if len(outputs) == 1 and outputs[0].name not in JUDGED:
        return _NOTHING_ELSE
    names = {output.name for output in outputs}
    return AnswerOptions(
        min_probability=_share(parameters, "min_probability") if DECISION in names else None,
        false_alarms=_share(parameters, "false_alarms") if DECISION in names else None,
        details=("familiarity",) if FAMILIARITY in names else (),
    )


def _share(parameters: Mapping[str, Any], name: str) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise MalformedRequest(f"'{name}' is {value!r:.40}; send a number between 0 and 1.")
    return float(value)


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise MalformedRequest(f"'{name}' must be true or false.")
    return bool(value)


def _objects(message: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    objects = message.get(name)
    if isinstance(objects, list):
        for each in objects:
            if not isinstance(each, dict):
                break
        else:
            return objects
    raise MalformedRequest(f"'{name}' must be a list of objects, each with a 'name'.")


def _id_of(message: Mapping[str, Any]) -> str:
    value = message.get("id")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedRequest("'id' must be a string.")
    return value
