"""What a worker finds when it compares what is held with who holds it."""

import pytest
from structlog.testing import capture_logs

from app.metrics import Metrics
from app.serving.admission import Admission
from app.serving.self_check import SelfCheck

LONGEST_S = 50.0


class Request:
    """An owner that is over when the test says so."""

    def __init__(self) -> None:
        self.is_over = False

    def done(self) -> bool:
        return self.is_over


class Watched:
    """An admission, its self-check, and the clock of both."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics()
        self.admission = Admission(
            max_pictures=4,
            max_bytes=1000,
            burst_s=1e6,
            metrics=self.metrics,
            clock=lambda: self.now,
            lag=lambda: 0.0,
            connections=lambda: 2.0,
        )
        self.check = SelfCheck(self.admission, self.metrics, longest_s=LONGEST_S)

    @property
    def corrections(self) -> float:
        return self.metrics.read()["imageclass_admission_corrections"][()][0]


@pytest.fixture
def watched(leaks_on_purpose: None) -> Watched:
    return Watched()


def test_what_open_requests_hold_is_left_alone(watched: Watched) -> None:
    watched.admission.enter(Request(), 2, size=100)
    watched.admission.hold(Request(), 50)
    for _ in range(5):
        assert watched.check.look() is None
    assert (watched.admission.pending, watched.admission.pending_bytes, watched.corrections) == (2, 150, 0)


def test_what_an_ended_request_still_holds_is_taken_back_told_and_counted(watched: Watched) -> None:
    leaky, other = Request(), Request()
    watched.admission.enter(leaky, 2, size=100)
    watched.admission.hold(leaky, 30)
    watched.admission.enter(other, size=7)
    leaky.is_over = True
    with capture_logs() as lines:
        assert watched.check.look() is None
        assert watched.corrections == 0  # it may be about to give back
        assert watched.check.look() is None
    assert (watched.admission.pending, watched.admission.pending_bytes, watched.corrections) == (1, 7, 2)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("defect", "error")
    assert (line["leases"], line["pictures"], line["bytes"]) == (2, 2, 130)


def test_a_request_that_gives_back_just_after_its_end_is_no_defect(watched: Watched) -> None:
    for _ in range(10):
        request = Request()
        lease = watched.admission.enter(request)
        request.is_over = True
        watched.check.look()
        lease.end()
    watched.check.look()
    assert watched.corrections == 0


def test_a_place_held_longer_than_any_request_may_live_asks_for_another_worker(watched: Watched) -> None:
    watched.admission.enter(Request())
    watched.now += LONGEST_S
    assert watched.check.look() is None
    watched.now += 1
    assert "held for 51 s" in str(watched.check.look())


def test_a_full_worker_that_gives_nothing_back_calls_for_another(watched: Watched) -> None:
    leases = [watched.admission.enter(Request()) for _ in range(4)]
    for _ in range(10):  # as long as something comes back, a full worker is a busy one
        watched.now += LONGEST_S - 1
        leases.pop(0).end()
        leases.append(watched.admission.enter(Request()))
        assert "full" not in str(watched.check.look())
    watched.admission.enter(Request(), 0)
    watched.now += LONGEST_S + 1
    reason = watched.check.look()
    assert reason is not None
