"""A model's answers as JSON. The constant parts are written once, when the model goes live."""

from base64 import b64encode
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contract.answer_options import AnswerOptions, AnswerSettings
from app.contract.bundle import Bundle
from app.contract.judgement import Judge
from app.contract.trust import TRUST, Neighbour
from app.serving.classifier import WithOutput

Answer = NDArray[np.float32] | WithOutput


class AnswerWriter:
    """Writes `Prediction`, and `PredictionAnswer`, for one model."""

    def __init__(self, bundle: Bundle, settings: AnswerSettings = AnswerSettings()) -> None:  # noqa: B008 - frozen
        manifest = bundle.manifest
        self.judge = Judge(bundle, settings)
        self._calibration = orjson.dumps(manifest.files.get(TRUST, ""))
        self._labels = [orjson.dumps(label) for label in manifest.labels]
        self.model = orjson.dumps({"name": manifest.name, "version": manifest.version})
        every = b",".join(label.replace(b"%", b"%%") + b":%b" for label in self._labels)
        self._with_all = b'"label":%b,"probability":%b,"probabilities":{' + every + b"}"
        self._whole = b"{" + self._with_all + b',"model":' + self.model.replace(b"%", b"%%") + b"}"

    def answer(self, answer: Answer, options: AnswerOptions) -> bytes:
        """Return `PredictionAnswer`; with `top_k`, only the best k labels, best first."""
        if (
            isinstance(answer, np.ndarray)
            and options.top_k is options.min_probability is options.set is self.judge.minimum is None
        ):
            return self._whole % self._values(answer)
        return b'{%b,"model":%b}' % (self._fields(answer, options), self.model)

    def entry(self, filename: str | None, answer: Answer, options: AnswerOptions) -> bytes:
        """Return `BatchPrediction`."""
        return b'{"file":%b,%b}' % (orjson.dumps(filename), self._fields(answer, options))

    def _fields(self, answer: Answer, options: AnswerOptions) -> bytes:
        probabilities, features = answer if isinstance(answer, WithOutput) else (answer, None)
        more = self._judged(probabilities, features, options)
        if options.top_k is None:
            return more + self._with_all % self._values(probabilities)
        label, probability, *values = self._values(probabilities)
        order = np.argsort(-probabilities, kind="stable")[: options.top_k]
        shown = b",".join(self._labels[index] + b":" + values[index] for index in order)
        return more + b'"label":%b,"probability":%b,"probabilities":{%b}' % (label, probability, shown)

    def _judged(
        self, probabilities: NDArray[np.float32], features: NDArray[np.float32] | None, options: AnswerOptions
    ) -> bytes:
        found = self.judge.judge(probabilities, features, options)
        said = b""
        if found.decision is not None:
            said += b'"decision":"%b",' % found.decision.encode("ascii")
        if found.unfamiliar is not None:
            said += b'"unfamiliar":true,' if found.unfamiliar else b'"unfamiliar":false,'
        if found.familiarity is not None:
            said += b'"familiarity":%b,' % orjson.dumps(found.familiarity._asdict())
        if found.neighbours is not None:
            said += b'"neighbours":[%b],' % b",".join(map(self._neighbour, found.neighbours))
        if found.set is not None:
            said += self._set(found.set, options)
        return said

    def _neighbour(self, near: Neighbour) -> bytes:
        thumbnail = b"" if near.thumbnail is None else b',"thumbnail":"%b"' % b64encode(near.thumbnail)
        return b'{"id":%b,"label":%b,"similarity":%.4f%b}' % (
            orjson.dumps(near.id),
            self._labels[near.label],
            near.similarity,
            thumbnail,
        )

    def _set(self, labels: Sequence[int], options: AnswerOptions) -> bytes:
        trust = self.judge.trust
        return b'"set":{"labels":[%b],"error_rate":%b,"method":"%b","held_out":%d,"calibration":%b},' % (
            b",".join(self._labels[label] for label in labels),
            orjson.dumps(options.set),
            options.set_method.encode("ascii"),
            0 if trust is None else trust.held_out,
            self._calibration,
        )

    def _values(self, probabilities: NDArray[np.float32]) -> tuple[bytes, ...]:
        """Return the best label, its probability, and all probabilities, as JSON."""
        # orjson writes a float32 with the fewest digits that read back as the same float32.
        values = orjson.dumps(probabilities, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        best = probabilities.argmax()
        return (self._labels[best], values[best], *values)
