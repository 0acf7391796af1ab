"""The questions of a review and their answers. An answer is written to the journal first."""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from training.data.decisions import Action, Decision, content_of, not_taken_back
from training.errors import OptionError
from training.review.journal import Journal
from training.review.questions import Question


class Session:
    """Questions by their numbers: those whose standing answers are in `answered`, then those that are open.

    `was` has the label that the source gives to a picture if a person has given it another one. Every method may be
    called from any thread.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        answered: Sequence[Decision],
        *,
        labels: Sequence[str],
        was: Mapping[str, str],
        journal: Journal,
    ) -> None:
        self.questions, self.labels = questions, labels
        self._was, self._journal = was, journal
        number_of = {each.question: number for number, each in enumerate(answered)}
        made = [each for each in not_taken_back(journal.decisions) if each.question in number_of]
        self._order = [number_of[each.question] for each in made]
        self._answers: dict[int, list[Decision]] = defaultdict(list)
        for each in made:
            self._answers[number_of[each.question]].append(each)
        self._lock = threading.Lock()

    def answer(self, number: int) -> Decision | None:
        """Return the answer that stands."""
        made = self._answers.get(number)
        return made[-1] if made else None

    def decide(self, number: int, action: Action, *, picture: int = 0, label: str = "") -> None:
        """Answer a question about one of its pictures. Raises DataError or OptionError, and keeps nothing then."""
        if not 0 <= number < len(self.questions):
            raise OptionError(f"There is no question {number}.")
        question = self.questions[number]
        if picture >= len(question.pictures):
            raise OptionError("There is no such picture in this question.")
        if action == "relabel" and label not in self.labels:
            raise OptionError(f"'{label}' is not a class of this data.")
        if action == "keep" and not question.can_keep:
            raise OptionError(f"A picture that is {question.check} cannot be kept. Drop one, or decide later.")
        if action == "undo":
            raise OptionError("Only undo can take back the last decision.")
        with self._lock:
            decision = self._decision(question, action, picture, label if action == "relabel" else "")
            made = self._answers[number]
            if made and made[0].question != decision.question:  # about the other one of two copies
                self._journal.append(*(_taken_back(each) for each in made), decision)
                self._order = [each for each in self._order if each != number]
                made.clear()
            else:
                self._journal.append(decision)
            made.append(decision)
            self._order.append(number)

    def undo(self) -> int | None:
        """Take back the last decision, and return the number of its question; None if there is nothing."""
        with self._lock:
            if not self._order:
                return None
            number = self._order[-1]
            self._journal.append(_taken_back(self._answers[number][-1]))
            self._answers[number].pop()
            self._order.pop()
            return number

    def _decision(self, question: Question, action: Action, place: int, label: str) -> Decision:
        picture = question.pictures[place]
        others = [other for other in question.pictures if other is not picture]
        return Decision(
            action=action,
            label=label,
            check=question.check,
            path=picture.id,
            was=self._was.get(picture.id, picture.label),
            content=content_of(picture),
            other=content_of(others[0]) if others else "",
            reason=" ".join(question.reasons),
            at=_now(),
        )


def _taken_back(decision: Decision) -> Decision:
    return replace(decision, action="undo", label="", at=_now())


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
