"""The ways to send pictures to a service over HTTP: for each, whole requests as files, and how its answers are read."""

import json
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from app.contract.bundle import read_manifest
from app.contract.preprocessing import preprocess
from benchmarks.harness.request import BATCH_PICTURES, json_post, raw_post, tensor_post
from benchmarks.harness.workload import WORK, Workload, write_requests

ProtocolName = Literal["multipart", "raw body", "batch", "v2 binary BYTES", "v2 binary UINT8", "TensorFlow Serving b64"]


def requests_by(
    protocol: ProtocolName, workload: Workload, *, many: bool = False, path: str | None = None
) -> Sequence[Path]:
    """Return files of whole requests with one picture each, or with BATCH_PICTURES; `path` is another server's."""
    count = BATCH_PICTURES if many else 1
    if path is None:
        match protocol:
            case "multipart":
                return workload.requests
            case "raw body":
                return workload.raw_requests
            case "batch":
                return workload.batch_requests
    write = _writer(protocol, workload, path)
    pictures: Sequence[bytes] = workload.pictures
    if protocol == "v2 binary UINT8":
        spec = read_manifest(workload.bundle).preprocessing
        pictures = [preprocess(picture, spec).tobytes() for picture in pictures]
    folder = f"{protocol} {count} {path or ''}".strip().replace(" ", "-").replace("/", "_")
    return write_requests(WORK / "requests" / workload.name / folder, [write(part) for part in parts(pictures, count)])


def parts(pictures: Sequence[bytes], count: int) -> list[list[bytes]]:
    """Return lists of `count` pictures that cover all pictures, starting over at their end."""
    starts = range(0, len(pictures), count)
    return [[pictures[(start + row) % len(pictures)] for row in range(count)] for start in starts]


def with_lengths(pictures: Sequence[bytes]) -> bytes:
    """Return the binary data of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)


def label_in(answer: bytes, labels: Sequence[str]) -> str:
    """Return the label of one picture's answer: JSON with `label`, or a binary answer that ends in probabilities."""
    try:
        found = json.loads(answer)
        return str((found[0] if isinstance(found, list) else found)["label"])  # BentoML answers with a list of one
    except ValueError:  # bytes follow the JSON
        size = 4 * len(labels)
        if len(answer) < size:
            return "neither JSON nor probabilities"
        return labels[int(np.frombuffer(answer[-size:], "<f4").argmax())]
    except (LookupError, TypeError):
        return "not our JSON"


def _writer(protocol: ProtocolName, workload: Workload, path: str | None) -> Callable[[Sequence[bytes]], bytes]:
    manifest = read_manifest(workload.bundle)

    def raw(pictures: Sequence[bytes]) -> bytes:
        return raw_post(pictures[0], path or "/predict")

    def elements(pictures: Sequence[bytes]) -> bytes:
        tensor: dict[str, object] = {"name": "image", "datatype": "BYTES", "shape": [len(pictures), 1]}
        return tensor_post(path or f"/v2/models/{manifest.name}/infer", tensor, with_lengths(pictures))

    def pixels(pictures: Sequence[bytes]) -> bytes:
        shape = [len(pictures), *manifest.preprocessing.shape]
        tensor: dict[str, object] = {"name": "image", "datatype": "UINT8", "shape": shape}
        return tensor_post(path or f"/v2/models/{manifest.name}/infer", tensor, b"".join(pictures))

    def instances(pictures: Sequence[bytes]) -> bytes:
        values = [{"b64": b64encode(picture).decode()} for picture in pictures]
        return json_post(path or f"/v1/models/{manifest.name}:predict", {"instances": values})

    writers = {
        "raw body": raw,
        "v2 binary BYTES": elements,
        "v2 binary UINT8": pixels,
        "TensorFlow Serving b64": instances,
    }
    return writers[protocol]
