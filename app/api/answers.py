"""A model's answers as JSON. The constant parts are written once, when the model goes live."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contract.bundle import FEATURES, Bundle
from app.contract.trust import TRUST, SetMethod, Trust
from app.errors import MalformedRequest
from app.serving.classifier import Classifier, WithOutput
from app.serving.versions import rate_of_false_alarms

Detail = Literal["familiarity", "neighbours"]


class Wish(NamedTuple):
    """What a request wishes of its answer.

    `min_probability` of a sure answer and the rate of `false_alarms` take the place of those that the settings and the
    bundle have. A set of labels misses the truth at the rate `set_error`, None for no set.
    """

    top_k: int | None = None
    min_probability: float | None = None
    false_alarms: float | None = None
    details: tuple[Detail, ...] = ()
    set_error: float | None = None
    set_method: SetMethod = "lac"

    @property
    def is_of_trust(self) -> bool:
        return bool(self.details) or self.false_alarms is not None or self.set_error is not None


class AnswerSettings(NamedTuple):
    """What the service's settings say of all answers; None leaves it to each model's bundle."""

    min_probability: float | None = None
    false_alarms: float | None = None


Answer = NDArray[np.float32] | WithOutput


class AnswerWriter:
    """Writes `Prediction`, and `PredictionAnswer`, for one model.

    What the settings leave open, the bundle says.
    """

    def __init__(self, bundle: Bundle, settings: AnswerSettings = AnswerSettings()) -> None:  # noqa: B008 - frozen
        manifest = bundle.manifest
        self._minimum = manifest.min_probability if settings.min_probability is None else settings.min_probability
        self._rate = rate_of_false_alarms(bundle, settings.false_alarms)
        self._trust = bundle.trust
        self._calibration = orjson.dumps(manifest.files.get(TRUST, ""))
        self._labels = [orjson.dumps(label) for label in manifest.labels]
        self.model = orjson.dumps({"name": manifest.name, "version": manifest.version})
        every = b",".join(label.replace(b"%", b"%%") + b":%b" for label in self._labels)
        self._with_all = b'"label":%b,"probability":%b,"probabilities":{' + every + b"}"
        self._whole = b"{" + self._with_all + b',"model":' + self.model.replace(b"%", b"%%") + b"}"

    def output_for(self, wish: Wish) -> str | None:
        """Return which output of the network the answer is made of besides the probabilities, if any.

        Raises MalformedRequest if the model knows too little for the wish.
        """
        if wish.is_of_trust:
            self._check(wish)
        return FEATURES if wish.details or (wish.false_alarms or self._rate) is not None else None

    def _check(self, wish: Wish) -> None:
        if self._trust is None:
            raise MalformedRequest(
                "The model's bundle does not know what familiar pictures look like, so false_alarms, details and set "
                "cannot be had. Train it again with validation pictures, or leave them out."
            )
        for name, rate in (("false_alarms", wish.false_alarms), ("set", wish.set_error)):
            if rate is not None and rate < self._trust.least_rate:
                raise MalformedRequest(
                    f"{name}={rate:g} is too low for this model's {self._trust.held_out:,} held-out pictures. "
                    f"Send {ceil(1e4 * self._trust.least_rate) / 1e4:g} or more."
                )

    def answer(self, answer: Answer, wish: Wish) -> bytes:
        """Return `PredictionAnswer`; with `top_k`, only the best k labels, best first."""
        if (
            isinstance(answer, np.ndarray)
            and wish.top_k is wish.min_probability is wish.set_error is self._minimum is None
        ):
            return self._whole % self._values(answer)
        return b'{%b,"model":%b}' % (self._fields(answer, wish), self.model)

    def entry(self, filename: str | None, answer: Answer, wish: Wish) -> bytes:
        """Return `BatchPrediction`."""
        return b'{"file":%b,%b}' % (orjson.dumps(filename), self._fields(answer, wish))

    def _fields(self, answer: Answer, wish: Wish) -> bytes:
        probabilities = answer.probabilities if isinstance(answer, WithOutput) else answer
        unfamiliar, more, trust = None, b"", self._trust
        if trust is not None and isinstance(answer, WithOutput):
            rate = self._rate if wish.false_alarms is None else wish.false_alarms
            if rate is not None or "familiarity" in wish.details:
                found = trust.familiarity(answer.output)
                unfamiliar = None if rate is None else found.overall <= rate
                if "familiarity" in wish.details:
                    more += b'"familiarity":%b,' % orjson.dumps(found._asdict())
            if "neighbours" in wish.details:
                more += b'"neighbours":[%b],' % self._neighbours(trust, answer.output)
        if trust is not None and wish.set_error is not None:
            more += self._set(trust, probabilities, wish.set_error, wish.set_method)
        more = self._decision(probabilities, wish, unfamiliar) + more
        if wish.top_k is None:
            return more + self._with_all % self._values(probabilities)
        label, probability, *values = self._values(probabilities)
        order = np.argsort(-probabilities, kind="stable")[: wish.top_k]
        shown = b",".join(self._labels[index] + b":" + values[index] for index in order)
        return more + b'"label":%b,"probability":%b,"probabilities":{%b}' % (label, probability, shown)

    def _decision(self, probabilities: NDArray[np.float32], wish: Wish, unfamiliar: bool | None) -> bytes:
        minimum = self._minimum if wish.min_probability is None else wish.min_probability
        if unfamiliar:
            return b'"decision":"unfamiliar","unfamiliar":true,'
        said = b"" if unfamiliar is None else b'"unfamiliar":false,'
        if minimum is None:
            return b'"decision":"label",' + said if said else b""
        # As float32, as the probability is: else one that reads 0.9 would be below 0.9.
        is_sure = probabilities.max() >= np.float32(minimum)
        return (b'"decision":"label",' if is_sure else b'"decision":"unsure",') + said

    def _neighbours(self, trust: Trust, features: NDArray[np.float32]) -> bytes:
        return b",".join(
            b'{"id":%b,"label":%b,"similarity":%.4f}'
            % (orjson.dumps(near.id), self._labels[near.label], near.similarity)
            for near in trust.neighbours(features)
        )

    def _set(self, trust: Trust, probabilities: NDArray[np.float32], error_rate: float, method: SetMethod) -> bytes:
        labels = b",".join(self._labels[label] for label in trust.prediction_set(probabilities, error_rate, method))
        return b'"set":{"labels":[%b],"error_rate":%b,"method":"%b","held_out":%d,"calibration":%b},' % (
            labels,
            orjson.dumps(error_rate),
            method.encode("ascii"),
            trust.held_out,
            self._calibration,
        )

    def _values(self, probabilities: NDArray[np.float32]) -> tuple[bytes, ...]:
        """Return the best label, its probability, and all probabilities, as JSON."""
        # orjson writes a float32 with the fewest digits that read back as the same float32.
        values = orjson.dumps(probabilities, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        best = probabilities.argmax()
        return (self._labels[best], values[best], *values)


class AnswerWriters:
    """The writers of the live models, and of replaced ones that still answer requests in flight."""

    def __init__(self, live: Callable[[], Sequence[Classifier]], settings: AnswerSettings) -> None:
        self._live = live
        self._settings = settings
        self._writers: dict[Classifier, AnswerWriter] = {}

    def of(self, model: Classifier) -> AnswerWriter:
        writer = self._writers.get(model)
        if writer is None:
            answering = [*self._live(), model]  # another version went live: forget replaced ones
            self._writers = {
                each: self._writers.get(each) or AnswerWriter(each.loaded.bundle, self._settings) for each in answering
            }
            writer = self._writers[model]
        return writer
