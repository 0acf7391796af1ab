"""A model's answers as JSON. The constant parts are written once, when the model goes live."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contract.bundle import Manifest
from app.serving.classifier import Classifier


class Wish(NamedTuple):
    """What a request wishes of its answer: only the `top_k` best labels, None for all, and another least probability of
    a sure answer than the settings and the bundle have, None for theirs."""

    top_k: int | None = None
    min_probability: float | None = None


class AnswerWriter:
    """Writes `Prediction`, and `PredictionAnswer`, for one model.

    Without `min_probability`, that of the bundle counts.
    """

    def __init__(self, manifest: Manifest, min_probability: float | None = None) -> None:
        self._minimum = manifest.min_probability if min_probability is None else min_probability
        self._labels = [orjson.dumps(label) for label in manifest.labels]
        self.model = orjson.dumps({"name": manifest.name, "version": manifest.version})
        every = b",".join(label.replace(b"%", b"%%") + b":%b" for label in self._labels)
        self._with_all = b'"label":%b,"probability":%b,"probabilities":{' + every + b"}"
        self._whole = b"{" + self._with_all + b',"model":' + self.model.replace(b"%", b"%%") + b"}"

    def answer(self, probabilities: NDArray[np.float32], wish: Wish) -> bytes:
        """Return `PredictionAnswer`; with `top_k`, only the best k labels, best first."""
        if wish.top_k is wish.min_probability is self._minimum is None:
            return self._whole % self._values(probabilities)
        return b'{%b,"model":%b}' % (self._fields(probabilities, wish), self.model)

    def entry(self, filename: str | None, probabilities: NDArray[np.float32], wish: Wish) -> bytes:
        """Return `BatchPrediction`."""
        return b'{"file":%b,%b}' % (orjson.dumps(filename), self._fields(probabilities, wish))

    def _fields(self, probabilities: NDArray[np.float32], wish: Wish) -> bytes:
        decision = self._decision(probabilities, wish)
        if wish.top_k is None:
            return decision + self._with_all % self._values(probabilities)
        label, probability, *values = self._values(probabilities)
        order = np.argsort(-probabilities, kind="stable")[: wish.top_k]
        shown = b",".join(self._labels[index] + b":" + values[index] for index in order)
        return decision + b'"label":%b,"probability":%b,"probabilities":{%b}' % (label, probability, shown)

    def _decision(self, probabilities: NDArray[np.float32], wish: Wish) -> bytes:
        minimum = self._minimum if wish.min_probability is None else wish.min_probability
        if minimum is None:
            return b""
        # As float32, as the probability is: else one that reads 0.9 would be below 0.9.
        return b'"decision":"label",' if probabilities.max() >= np.float32(minimum) else b'"decision":"unsure",'

    def _values(self, probabilities: NDArray[np.float32]) -> tuple[bytes, ...]:
        """Return the best label, its probability, and all probabilities, as JSON."""
        # orjson writes a float32 with the fewest digits that read back as the same float32.
        values = orjson.dumps(probabilities, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        best = probabilities.argmax()
        return (self._labels[best], values[best], *values)


class AnswerWriters:
    """The writers of the live models, and of replaced ones that still answer requests in flight."""

    def __init__(self, live: Callable[[], Sequence[Classifier]], min_probability: float | None) -> None:
        self._live = live
        self._min_probability = min_probability
        self._writers: dict[Classifier, AnswerWriter] = {}

    def of(self, model: Classifier) -> AnswerWriter:
        writer = self._writers.get(model)
        if writer is None:
            answering = [*self._live(), model]  # another version went live: forget replaced ones
            self._writers = {
                each: self._writers.get(each) or AnswerWriter(each.manifest, self._min_probability)
                for each in answering
            }
            writer = self._writers[model]
        return writer
