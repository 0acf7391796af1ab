"""Write the answer to an inference request of the protocol. It knows nothing of HTTP or gRPC."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from app.api.protocols.open_inference.requests import FAMILIARITY, InferRequest, RequestedOutput
from app.api.protocols.open_inference.tensors import bytes_to_binary
from app.contract.judgement import Judgement


class OutputTensor(NamedTuple):
    """FP32 numbers or BYTES, and the shape that they have."""

    shape: tuple[int, ...]
    values: NDArray[np.float32] | list[bytes]

    @property
    def datatype(self) -> str:
        return "FP32" if isinstance(self.values, np.ndarray) else "BYTES"

    def binary(self) -> bytes:
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4", copy=False).tobytes()
        return bytes_to_binary(self.values)


def output_tensor(output: RequestedOutput, probabilities: NDArray[np.float32], labels: Sequence[str]) -> OutputTensor:
    """Return probabilities (N, K) in the requested form.

    The form is FP32 (N, K), or BYTES of "probability:index:label", best first, in the shape (N, classes). More classes
    than there are labels mean all of them.
    """
    count, all_classes = probabilities.shape
    if not output.classes:
        return OutputTensor((count, all_classes), probabilities)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : output.classes]
    # orjson writes a float32 with the fewest digits that read back as the same float32.
    values = [
        b"%b:%d:%b" % (orjson.dumps(row[index], option=orjson.OPT_SERIALIZE_NUMPY), index, labels[index].encode())
        for row, indices in zip(probabilities, best, strict=True)
        for index in indices
    ]
    return OutputTensor((count, best.shape[1]), values)


def judged_tensor(name: str, judgements: Sequence[Judgement]) -> OutputTensor:
    """Return the judgements of pictures: FP32 familiarity (N, 3), as in `Familiarity`, or BYTES of decisions (N,)."""
    count = len(judgements)
    if name == FAMILIARITY:
        return OutputTensor((count, 3), np.array([each.familiarity for each in judgements], np.float32))
    return OutputTensor((count,), [(each.decision or "").encode() for each in judgements])


def to_body(
    request: InferRequest, tensors: Sequence[OutputTensor], *, model: str, version: str
) -> tuple[bytes, int | None]:
    """Return the body of the answer, and the length of its JSON if binary data follows."""
    if len(tensors) == 1 and request.outputs[0].binary and isinstance(tensors[0].values, np.ndarray) and not request.id:
        data = tensors[0].binary()
        text = _json_of_one(model, version, request.outputs[0].name, tensors[0].shape, len(data))
        return text + data, len(text)
    outputs = []
    pieces = []
    for asked, tensor in zip(request.outputs, tensors, strict=True):
        output: dict[str, object] = {"name": asked.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if asked.binary:
            pieces.append(tensor.binary())
            output["parameters"] = {"binary_data_size": len(pieces[-1])}
        elif isinstance(tensor.values, np.ndarray):
            output["data"] = np.ascontiguousarray(tensor.values).reshape(-1)
        else:
            output["data"] = [value.decode() for value in tensor.values]
        outputs.append(output)
    text = _json(model, version, request.id, outputs)
    return (b"".join([text, *pieces]), len(text)) if pieces else (text, None)


@lru_cache(maxsize=256)
def _json_of_one(model: str, version: str, output: str, shape: tuple[int, ...], size: int) -> bytes:
    """Return the JSON of an answer without an id and with one binary output: most answers are of this kind, and few of
    them differ."""
    tensor = {"name": output, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
    return _json(model, version, "", [tensor])


def _json(model: str, version: str, request_id: str, outputs: Sequence[Mapping[str, object]]) -> bytes:
    message: dict[str, object] = {"model_name": model, "model_version": version}
    if request_id:
        message["id"] = request_id
    message["outputs"] = outputs
    return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
