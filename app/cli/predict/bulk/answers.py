"""Answer pictures, row by row. It does not know where they come from, what classifies them, or where answers go."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.cli.predict.pictures import Picture, Unreadable
from app.client import Failure
from app.contract.answer_options import AnswerOptions

Values = NDArray[np.float32]
"""The model's answer to one picture: the row that `row_of` makes of its probabilities, or features."""

DECISIONS = ("label", "unsure", "unfamiliar")

Classify = Callable[[Sequence[bytes]], Sequence[Values | Failure]]
"""Returns the outcome of each encoded picture, in order. An unusable picture is an outcome, not an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row: the picture's name, the sha256 of its bytes, "" if it could not be read, its stamp, and its outcome."""

    file: str
    sha256: str
    stamp: str
    outcome: Values | Failure


def answers_to(pictures: Sequence[Picture | Unreadable], classify: Classify) -> list[Answer]:
    """Return an answer to each picture, in their order: the shard function of every engine."""
    readable = [each for each in pictures if isinstance(each, Picture)]
    outcomes = iter(classify([each.data for each in readable]) if readable else ())
    return [
        Answer(each.name, digest_of(each), each.stamp, next(outcomes))
        if isinstance(each, Picture)
        else Answer(each.name, "", each.stamp, Failure(each.reason, each.code))
        for each in pictures
    ]


def row_of(
    probabilities: NDArray[np.float32], options: AnswerOptions, decision: str | None, members: Sequence[int] | None
) -> Values:
    """Return the K probabilities; after them, if requested, the decision's place in DECISIONS, and K numbers that are
    1 for each label that is a member of the set."""
    row = [probabilities]
    if options.asks_for_decision:
        row.append(np.array([DECISIONS.index(decision or "label")], np.float32))
    if options.set is not None:
        row.append(np.isin(np.arange(len(probabilities)), members or ()).astype(np.float32))
    return np.concatenate(row)


def digest_of(read: Picture | Unreadable) -> str:
    """Return the sha256 of a picture's bytes; "" if it could not be read."""
    return hashlib.sha256(read.data).hexdigest() if isinstance(read, Picture) else ""
