"""Judge how far an answer can be trusted, by the request's options, the service's settings, and the bundle's data."""

from math import ceil
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contract.answer_options import AnswerOptions, AnswerSettings
from app.contract.bundle import FEATURES, Bundle
from app.contract.trust import Familiarity, Neighbour
from app.errors import MalformedRequest

Decision = Literal["label", "unsure", "unfamiliar"]


class Judgement(NamedTuple):
    """The judgement of one answer. A field that was not requested is None; `set` has indices of labels."""

    decision: Decision | None = None
    unfamiliar: bool | None = None
    familiarity: Familiarity | None = None
    neighbours: list[Neighbour] | None = None
    set: list[int] | None = None


class Judge:
    """Judges the answers of one model. The bundle's values apply if the settings have none."""

    def __init__(self, bundle: Bundle, settings: AnswerSettings) -> None:
        minimum = settings.min_probability
        self.minimum = bundle.manifest.min_probability if minimum is None else minimum
        self.rate = rate_of_false_alarms(bundle, settings.false_alarms)
        self.trust = bundle.trust

    @property
    def decides(self) -> bool:
        """Whether answers have a decision even if the request does not ask for one."""
        return self.minimum is not None or self.rate is not None

    def output_for(self, options: AnswerOptions) -> str | None:
        """Return which output of the network is needed besides the probabilities, if any.

        Raises MalformedRequest if the bundle lacks the data that the options need.
        """
        if options.is_of_trust:
            self._check(options)
        return FEATURES if options.details or (options.false_alarms or self.rate) is not None else None

    def _check(self, options: AnswerOptions) -> None:
        if self.trust is None:
            raise MalformedRequest(
                "The model's bundle has no trust.npz, which false_alarms, details and set need. Train the model "
                "again with validation pictures, or leave these parameters out."
            )
        for name, rate in (("false_alarms", options.false_alarms), ("set", options.set)):
            if rate is not None and rate < self.trust.least_rate:
                raise MalformedRequest(
                    f"{name}={rate:g} is too low for this model's {self.trust.held_out:,} held-out pictures. "
                    f"Send {ceil(1e4 * self.trust.least_rate) / 1e4:g} or more."
                )

    def judge(
        self, probabilities: NDArray[np.float32], features: NDArray[np.float32] | None, options: AnswerOptions
    ) -> Judgement:
        """Judge an answer (K,), by the features (D,) too if `output_for` says that they are needed."""
        trust, found, near, unfamiliar = self.trust, None, None, None
        if trust is not None and features is not None:
            rate = self.rate if options.false_alarms is None else options.false_alarms
            if rate is not None or "familiarity" in options.details:
                found = trust.familiarity(features)
                unfamiliar = None if rate is None else found.overall <= rate
            if "neighbours" in options.details:
                near = trust.neighbours(features)
        labels = None
        if trust is not None and options.set is not None:
            labels = trust.prediction_set(probabilities, options.set, options.set_method)
        return Judgement(
            decision=self._decision(probabilities, options, unfamiliar),
            unfamiliar=unfamiliar,
            familiarity=found if "familiarity" in options.details else None,
            neighbours=near,
            set=labels,
        )

    def _decision(
        self, probabilities: NDArray[np.float32], options: AnswerOptions, unfamiliar: bool | None
    ) -> Decision | None:
        minimum = self.minimum if options.min_probability is None else options.min_probability
        if unfamiliar:
            return "unfamiliar"
        if minimum is None:
            return None if unfamiliar is None else "label"
        # As float32, as the probability is: else one that reads 0.9 would be below 0.9.
        return "label" if probabilities.max() >= np.float32(minimum) else "unsure"


def rate_of_false_alarms(bundle: Bundle, setting: float | None) -> float | None:
    """Return the rate at which a service calls familiar pictures of this model unfamiliar, None if it never does.

    The setting overrides the bundle's rate. None, too, if the bundle has too few held-out pictures for the rate.
    """
    rate, trust = bundle.manifest.false_alarms if setting is None else setting, bundle.trust
    return None if rate is None or trust is None or rate < trust.least_rate else rate
