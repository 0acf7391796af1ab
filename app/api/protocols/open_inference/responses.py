"""Write the answer to an inference request of the protocol. It knows nothing of HTTP or gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from app.api.protocols.open_inference.requests import InferRequest, RequestedOutput
from app.api.protocols.open_inference.tensors import bytes_to_binary


@dataclass(frozen=True)
class OutputTensor:
    """FP32 probabilities (N, K), or BYTES of "probability:index:label", best first, in the shape (N, classes)."""

    shape: tuple[int, int]
    values: NDArray[np.float32] | list[bytes]

    @property
    def datatype(self) -> str:
        return "FP32" if isinstance(self.values, np.ndarray) else "BYTES"

    def binary(self) -> bytes:
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4", copy=False).tobytes()
        return bytes_to_binary(self.values)


def output_tensor(output: RequestedOutput, probabilities: NDArray[np.float32], labels: Sequence[str]) -> OutputTensor:
    """Return probabilities (N, K) in the requested form. More classes than there are labels mean all of them."""
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


def to_body(
    request: InferRequest, tensor: OutputTensor, *, model: str, version: str, output_name: str
) -> tuple[bytes, int | None]:
    """Return the body of the answer, and the length of its JSON if binary data follows."""
    output: dict[str, object] = {"name": output_name, "datatype": tensor.datatype, "shape": tensor.shape}
    binary = b""
    if request.output.binary:
        binary = tensor.binary()
        output["parameters"] = {"binary_data_size": len(binary)}
    elif isinstance(tensor.values, np.ndarray):
        output["data"] = np.ascontiguousarray(tensor.values).reshape(-1)
    else:
        output["data"] = [value.decode() for value in tensor.values]
    message: dict[str, object] = {"model_name": model, "model_version": version}
    if request.id:
        message["id"] = request.id
    message["outputs"] = [output]
    text = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    return (text + binary, len(text)) if request.output.binary else (text, None)
