"""What is wished of an answer, in plain values, by the names that HTTP gives them."""

from typing import Any, Literal, NamedTuple

Detail = Literal["familiarity", "neighbours"]
SetMethod = Literal["lac", "aps"]


class Wish(NamedTuple):
    """What a request wishes of its answer.

    `min_probability` of a sure answer and the rate of `false_alarms` take the place of those that the settings and the
    bundle have. A `set` of labels misses the truth at that rate, None for no set.
    """

    top_k: int | None = None
    min_probability: float | None = None
    false_alarms: float | None = None
    details: tuple[Detail, ...] = ()
    set: float | None = None
    set_method: SetMethod = "lac"

    @property
    def is_of_trust(self) -> bool:
        return bool(self.details) or self.false_alarms is not None or self.set is not None

    def given(self) -> dict[str, Any]:
        """Return what is wished for, without what is left out."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}

    @property
    def asks_for_decision(self) -> bool:
        return self.min_probability is not None or self.false_alarms is not None


class AnswerSettings(NamedTuple):
    """What the service's settings say of all answers; None leaves it to each model's bundle."""

    min_probability: float | None = None
    false_alarms: float | None = None
