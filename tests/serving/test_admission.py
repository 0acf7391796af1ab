import pytest

from app.errors import Overloaded
from app.serving.admission import Admission


def test_what_fits_is_admitted_and_gives_its_place_back() -> None:
    admission = Admission(max_pending=3)
    with admission.admit(2), admission.admit():
        assert admission.pending == 3
    assert admission.pending == 0


def test_one_more_than_fits_is_refused_and_takes_no_place() -> None:
    admission = Admission(max_pending=3)
    with admission.admit(2), pytest.raises(Overloaded, match="holds 2 pictures"), admission.admit(2):
        raise AssertionError("admitted")
    assert admission.pending == 0


def test_a_place_comes_back_after_a_failure() -> None:
    admission = Admission(max_pending=1)
    with pytest.raises(KeyError), admission.admit():
        raise KeyError
    assert admission.pending == 0
