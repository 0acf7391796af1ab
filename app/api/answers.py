"""A model's answers as JSON. What never changes about them is written once, when the model goes live."""

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contract.bundle import Manifest


class Answers:
    """Writes `Prediction`, and `PredictionAnswer`, for one model."""

    def __init__(self, manifest: Manifest) -> None:
        self._labels = [orjson.dumps(label) for label in manifest.labels]
        self.model = orjson.dumps({"name": manifest.name, "version": manifest.version})
        every = b",".join(label.replace(b"%", b"%%") + b":%b" for label in self._labels)
        self._with_all = b'"label":%b,"probability":%b,"probabilities":{' + every + b"}"

    def answer(self, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        """Return `PredictionAnswer`; with `top_k`, only the best k labels, best first."""
        return b'{%b,"model":%b}' % (self._fields(probabilities, top_k), self.model)

    def entry(self, filename: str | None, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        """Return `BatchPrediction`."""
        return b'{"file":%b,%b}' % (orjson.dumps(filename), self._fields(probabilities, top_k))

    def _fields(self, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        # orjson writes a float32 in the fewest digits that tell it apart.
        values = orjson.dumps(probabilities, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        best = probabilities.argmax()
        if top_k is None:
            return self._with_all % (self._labels[best], values[best], *values)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        shown = b",".join(self._labels[index] + b":" + values[index] for index in order)
        return b'"label":%b,"probability":%b,"probabilities":{%b}' % (self._labels[best], values[best], shown)
