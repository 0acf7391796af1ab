"""A model's answers as JSON. The constant parts are written once, when the model goes live."""

from collections.abc import Callable, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contract.bundle import Manifest
from app.serving.classifier import Classifier


class AnswerWriter:
    """Writes `Prediction`, and `PredictionAnswer`, for one model."""

    def __init__(self, manifest: Manifest) -> None:
        self._labels = [orjson.dumps(label) for label in manifest.labels]
        self.model = orjson.dumps({"name": manifest.name, "version": manifest.version})
        every = b",".join(label.replace(b"%", b"%%") + b":%b" for label in self._labels)
        self._with_all = b'"label":%b,"probability":%b,"probabilities":{' + every + b"}"
        self._whole = b"{" + self._with_all + b',"model":' + self.model.replace(b"%", b"%%") + b"}"

    def answer(self, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        """Return `PredictionAnswer`; with `top_k`, only the best k labels, best first."""
        if top_k is None:
            return self._whole % self._values(probabilities)
        return b'{%b,"model":%b}' % (self._fields(probabilities, top_k), self.model)

    def entry(self, filename: str | None, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        """Return `BatchPrediction`."""
        return b'{"file":%b,%b}' % (orjson.dumps(filename), self._fields(probabilities, top_k))

    def _fields(self, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        if top_k is None:
            return self._with_all % self._values(probabilities)
        label, probability, *values = self._values(probabilities)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        shown = b",".join(self._labels[index] + b":" + values[index] for index in order)
        return b'"label":%b,"probability":%b,"probabilities":{%b}' % (label, probability, shown)

    def _values(self, probabilities: NDArray[np.float32]) -> tuple[bytes, ...]:
        """Return the best label, its probability, and all probabilities, as JSON."""
        # orjson writes a float32 with the fewest digits that read back as the same float32.
        values = orjson.dumps(probabilities, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        best = probabilities.argmax()
        return (self._labels[best], values[best], *values)


class AnswerWriters:
    """The writers of the live models, and of replaced ones that still answer requests in flight."""

    def __init__(self, live: Callable[[], Sequence[Classifier]]) -> None:
        self._live = live
        self._writers: dict[Classifier, AnswerWriter] = {}

    def of(self, model: Classifier) -> AnswerWriter:
        writer = self._writers.get(model)
        if writer is None:
            answering = [*self._live(), model]  # another version went live: forget replaced ones
            self._writers = {each: self._writers.get(each) or AnswerWriter(each.manifest) for each in answering}
            writer = self._writers[model]
        return writer
