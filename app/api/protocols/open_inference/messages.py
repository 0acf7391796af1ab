"""Convert the protocol's gRPC messages from and to the objects that HTTP uses."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.api.protocols.open_inference.requests import (
    InferRequest,
    Reader,
    answer_options_of,
    check_parameters,
    timeout_of,
)
from app.api.protocols.open_inference.responses import OutputTensor
from app.api.protocols.open_inference.tensors import (
    Pictures,
    array_from_binary,
    array_from_values,
    encoded_from_binary,
    shape_of,
)
from app.errors import MalformedRequest
from app.system.wording import count_of

_Message = TypeVar("_Message", bound=Message)


def read(kind: type[_Message], data: bytes) -> _Message:
    """Parse a message. Raises MalformedRequest."""
    message: _Message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as exc:
        raise MalformedRequest(f"These bytes are not a {kind.DESCRIPTOR.name} message.") from exc
    return message


def write(kind: type[Message], content: Mapping[str, Any]) -> bytes:
    """Serialize a message with the content of HTTP's JSON."""
    return ParseDict(content, kind()).SerializeToString()  # type: ignore[no-any-return]


def infer_request(message: pb.ModelInferRequest, reader: Reader) -> InferRequest:
    """Parse an inference request. Raises MalformedRequest."""
    reader.check_input([sent.name for sent in message.inputs])
    sent, raw = message.inputs[0], message.raw_input_contents
    parameters = _parameters(message.parameters)
    asked = [(output.name, _parameters(output.parameters)) for output in message.outputs]
    outputs = reader.outputs(asked, lambda _: bool(raw))
    check_parameters(_parameters(sent.parameters))
    shape = shape_of(list(sent.shape), "The input")
    if raw:
        if len(raw) != 1 or sent.HasField("contents"):
            raise MalformedRequest("'raw_input_contents' must have one element, for the one input without 'contents'.")
        pictures = reader.pictures(
            sent.datatype,
            shape,
            encoded=lambda count, where: encoded_from_binary(raw[0], count, where),
            array=lambda where: array_from_binary(raw[0], shape, where),
        )
    else:
        pictures = _typed(sent, shape, reader)
    return InferRequest(pictures, outputs, message.id, timeout_of(parameters), answer_options_of(outputs, parameters))


def infer_response(request: InferRequest, tensors: Sequence[OutputTensor], *, model: str, version: str) -> bytes:
    """Serialize the answer: raw contents if the request had raw contents, else typed ones."""
    message = pb.ModelInferResponse(model_name=model, model_version=version, id=request.id)
    for asked, tensor in zip(request.outputs, tensors, strict=True):
        output = message.outputs.add(name=asked.name, datatype=tensor.datatype, shape=tensor.shape)
        if asked.binary:
            message.raw_output_contents.append(tensor.binary())
        elif isinstance(tensor.values, np.ndarray):
            output.contents.fp32_contents.extend(tensor.values.reshape(-1))
        else:
            output.contents.bytes_contents.extend(tensor.values)
    return message.SerializeToString()  # type: ignore[no-any-return]


def _typed(sent: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...], reader: Reader) -> Pictures:
    def encoded(count: int, where: str) -> list[bytes]:
        pictures = list(sent.contents.bytes_contents)
        if len(pictures) != count:
            raise MalformedRequest(
                f"{where}: the shape {list(shape)} takes {count_of(count, 'element')}, not {len(pictures)}."
            )
        return pictures

    return reader.pictures(
        sent.datatype,
        shape,
        encoded=encoded,
        array=lambda where: array_from_values(sent.contents.uint_contents, shape, where),
    )


def _parameters(sent: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not sent:
        return found
    for name, parameter in sent.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(parameter, choice)
    return found
