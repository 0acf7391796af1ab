"""Inference requests as questions: the part that HTTP and gRPC share, and HTTP's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.api.inference import Inference, Message, Question, Written
from app.api.protocols.open_inference.requests import InferRequest, Reader
from app.api.protocols.open_inference.responses import OutputTensor, output_tensor, to_body
from app.errors import MalformedRequest
from app.serving.classifier import Classifier

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"


class InferQuestion(Question):
    """Pictures to classify, and the requested form of their probabilities."""

    asked: InferRequest
    """The parsed message; set by `read`."""

    def __init__(self, inference: Inference, model: str, version: str | None) -> None:
        self.model, self.version = model, version
        self._inference = inference

    def reader(self, model: Classifier) -> Reader:
        inference = self._inference
        return Reader(model.manifest, parse_json=inference.parse_json, check_count=inference.check_count)

    def tensor(self, model: Classifier, outcomes: Sequence[Any]) -> OutputTensor:
        """Return the probabilities in the requested form."""
        return output_tensor(self.asked.output, np.stack(outcomes), model.manifest.labels)


class HttpInfer(InferQuestion):
    """A question over HTTP. `json_length` is the header with the length of the JSON before binary data, or None."""

    def __init__(self, inference: Inference, model: str, version: str | None, json_length: str | None) -> None:
        super().__init__(inference, model, version)
        self._header = json_length
        self._json_length: int | None = None  # after `check_head`

    def check_head(self) -> None:
        self._json_length = _length_of(self._header)

    def read(self, body: bytes, model: Classifier) -> Message:
        asked = self.asked = self.reader(model).from_body(body, self._json_length)
        return asked.pictures, asked.timeout_s

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        tensor, output_name = self.tensor(model, outcomes), model.manifest.signature.output.name
        body, json_length = to_body(
            self.asked, tensor, model=model.name, version=model.version, output_name=output_name
        )
        if json_length is None:
            return Written(body)
        return Written(body, "application/octet-stream", [(JSON_LENGTH_HEADER, str(json_length))])


def _length_of(header: str | None) -> int | None:
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) < 16):
        raise MalformedRequest(f"{JSON_LENGTH_HEADER} is '{header[:40]}'; it is the number of bytes of the JSON.")
    return int(header)
