"""An answer is in the file before it counts, and what is taken back is as if it had never been."""

import pytest

from tests.training.review.conftest import Reviewed
from training.data.decisions import answers, decisions_file, read_decisions, standing
from training.data.sources import open_data
from training.errors import DataError, OptionError
from training.review.questions import answered_questions
from training.review.session import Session


def stand(reviewed: Reviewed) -> list[tuple[str, str]]:
    return [(each.action, each.path) for each in standing(read_decisions(decisions_file(reviewed.data)))]


def test_an_answer_is_in_the_file_at_once(reviewed: Reviewed) -> None:
    number = reviewed.number("wrong-label")
    reviewed.session.decide(number, "relabel", label="dogs")
    (made,) = read_decisions(decisions_file(reviewed.data))
    assert (made.action, made.label, made.path, made.was) == ("relabel", "dogs", "cats/05.png", "cats")
    assert made.reason == "Looks like 'dogs'."


def test_undo_goes_back_step_by_step_and_ends(reviewed: Reviewed) -> None:
    first, second = reviewed.number("wrong-label"), reviewed.number("duplicate")
    reviewed.session.decide(first, "keep")
    reviewed.session.decide(second, "drop")
    reviewed.session.decide(first, "drop")
    assert reviewed.session.undo() == first
    assert stand(reviewed) == [("keep", "cats/05.png"), ("drop", "cats/copy.png")]
    assert [reviewed.session.undo() for _ in range(3)] == [second, first, None]
    assert stand(reviewed) == []


def test_of_two_copies_the_other_one_can_be_dropped_instead(reviewed: Reviewed) -> None:
    number = reviewed.number("duplicate")
    for place in (0, 0, 1):
        reviewed.session.decide(number, "drop", picture=place)
    assert stand(reviewed) == [("drop", "cats/01.png")]
    assert reviewed.session.undo() == number
    assert stand(reviewed) == []
    assert reviewed.session.undo() is None


def test_what_cannot_be_is_refused(reviewed: Reviewed) -> None:
    session = reviewed.session
    for number, words in (
        (len(session.questions), {"action": "drop"}),
        (reviewed.number("wrong-label"), {"action": "drop", "picture": 1}),
        (reviewed.number("wrong-label"), {"action": "relabel", "label": "birds"}),
        (reviewed.number("corrupt"), {"action": "keep"}),
        (reviewed.number("wrong-label"), {"action": "undo"}),
    ):
        with pytest.raises(OptionError):
            session.decide(number, **words)
    assert stand(reviewed) == []


def test_a_file_that_is_gone_cannot_be_decided_about(reviewed: Reviewed) -> None:
    (reviewed.data / "cats" / "05.png").unlink()
    with pytest.raises(DataError, match=r"cats/05\.png cannot be read"):
        reviewed.session.decide(reviewed.number("wrong-label"), "drop")


def test_a_later_session_can_take_back_what_an_earlier_one_decided(reviewed: Reviewed) -> None:
    number = reviewed.number("wrong-label")
    reviewed.session.decide(number, "keep")
    reviewed.session.decide(number, "relabel", label="dogs")
    data = open_data(str(reviewed.data), tolerant=True)
    given = answers(data.of_source(), reviewed.journal.decisions)
    again = Session(
        answered_questions(given),
        [each.decision for each in given],
        labels=data.labels,
        was=data.decided.was,
        journal=reviewed.journal,
    )
    assert again.questions[0].reasons == ("Looks like 'dogs'.",)
    assert again.undo() == 0
    assert stand(reviewed) == [("keep", "cats/05.png")]
    assert again.undo() == 0
    assert again.undo() is None
