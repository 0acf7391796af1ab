"""Inference requests as questions: the part that HTTP and gRPC share, and HTTP's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.api.inference import Inference, Message, Question, Written
from app.api.per_model import PerModel
from app.api.protocols.open_inference.requests import DECISION, JUDGED, InferRequest, Reader
from app.api.protocols.open_inference.responses import OutputTensor, judged_tensor, output_tensor, to_body
from app.api.questions import Questions
from app.errors import MalformedRequest
from app.serving.classifier import Classifier, WithOutput

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"


def readers_of(inference: Inference) -> PerModel[Reader]:
    return PerModel(
        inference.catalogue,
        lambda model: Reader(model.manifest, parse_json=inference.parse_json, check_count=inference.check_count),
    )


class InferQuestion(Question):
    """Pictures to classify, and the requested outputs."""

    asked: InferRequest
    """The parsed message; set by `read`."""

    def __init__(self, questions: Questions, readers: PerModel[Reader], model: str, version: str | None) -> None:
        self.model, self.version = model, version
        self.reader_of = readers.of
        self._writer_of = questions.writers.of

    def output_of(self, model: Classifier) -> str | None:
        if not self.asked.is_judged:
            return None
        judge, options = self._writer_of(model).judge, self.asked.options
        if self.asked.asks_for(DECISION) and not (options.asks_for_decision or judge.decides):
            raise MalformedRequest(
                f"'{DECISION}' needs a minimum probability or a false-alarm rate, and none is set. Send "
                "min_probability or false_alarms as a parameter of the request."
            )
        return judge.output_for(options)

    def tensors(self, model: Classifier, outcomes: Sequence[Any]) -> list[OutputTensor]:
        """Return the requested outputs."""
        asked, labels = self.asked, model.manifest.labels
        if not asked.is_judged:
            return [output_tensor(asked.outputs[0], np.array(outcomes), labels)]
        rows = [each if isinstance(each, WithOutput) else (each, None) for each in outcomes]
        judge = self._writer_of(model).judge
        judgements = [judge.judge(probabilities, features, asked.options) for probabilities, features in rows]
        return [
            judged_tensor(output.name, judgements)
            if output.name in JUDGED
            else output_tensor(output, np.array([probabilities for probabilities, _ in rows]), labels)
            for output in asked.outputs
        ]


class HttpInfer(InferQuestion):
    """A question over HTTP. `json_length` is the header with the length of the JSON before binary data, or None."""

    def __init__(
        self, questions: Questions, readers: PerModel[Reader], model: str, version: str | None, json_length: str | None
    ) -> None:
        super().__init__(questions, readers, model, version)
        self._header = json_length
        self._json_length: int | None = None  # after `check_head`

    def check_head(self) -> None:
        self._json_length = _length_of(self._header)

    def read(self, body: bytes, model: Classifier) -> Message:
        asked = self.asked = self.reader_of(model).from_body(body, self._json_length)
        return asked.pictures, asked.timeout_s

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        tensors = self.tensors(model, outcomes)
        body, json_length = to_body(self.asked, tensors, model=model.name, version=model.version)
        if json_length is None:
            return Written(body)
        return Written(body, "application/octet-stream", [(JSON_LENGTH_HEADER, str(json_length))])


def _length_of(header: str | None) -> int | None:
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) < 16):
        raise MalformedRequest(f"{JSON_LENGTH_HEADER} is '{header[:40]}'; it is the number of bytes of the JSON.")
    return int(header)
