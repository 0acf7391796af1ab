"""Requests to predict and classify as questions, in TensorFlow Serving's JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.api.inference import Inference, Message, Question, Written
from app.api.protocols.tensorflow_serving.requests import Reader
from app.api.protocols.tensorflow_serving.responses import classified, predicted
from app.serving.classifier import Classifier


class _JsonQuestion(Question):
    def __init__(self, inference: Inference, model: str, version: str | None) -> None:
        self.model, self.version = model, version
        self._inference = inference

    def _reader(self, model: Classifier) -> Reader:
        return Reader(model.manifest, check_count=self._inference.check_count)


class Predict(_JsonQuestion):
    """`:predict`, in row form or in column form."""

    _in_columns = False

    def read(self, body: bytes, model: Classifier) -> Message:
        pictures, self._in_columns = self._reader(model).predict(self._inference.parse_json(body))
        return pictures, None

    def write(self, _: Classifier, outcomes: Sequence[Any]) -> Written:
        return Written(predicted(np.array(outcomes), columns=self._in_columns))


class Classify(_JsonQuestion):
    """`:classify`."""

    def read(self, body: bytes, model: Classifier) -> Message:
        return self._reader(model).classify(self._inference.parse_json(body)), None

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        return Written(classified(np.array(outcomes), model.manifest.labels))
