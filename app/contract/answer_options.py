"""What a request may ask of its answer, as plain values, with the names that they have in HTTP."""

from typing import Any, Literal, NamedTuple

Detail = Literal["familiarity", "neighbours"]
SetMethod = Literal["lac", "aps"]


class AnswerOptions(NamedTuple):
    """The options that a request sets for its answer.

    `min_probability` and the rate of `false_alarms` override those of the settings and the bundle. `set` is the rate at
    which a set of labels may miss the truth, None for no set.
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
        """Return the options that differ from their defaults, by name."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}

    @property
    def asks_for_decision(self) -> bool:
        return self.min_probability is not None or self.false_alarms is not None


class AnswerSettings(NamedTuple):
    """The service's settings for all answers; None leaves one to each model's bundle."""

    min_probability: float | None = None
    false_alarms: float | None = None
