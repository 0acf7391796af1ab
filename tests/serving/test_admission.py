"""What a worker takes, and what it refuses: calm, under overload, and after it."""

import contextlib

import pytest

from app.errors import Overloaded
from app.metrics import Metrics
from app.serving.admission import Admission
from tests.serving.places import places


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """Somebody who waits for an answer."""

    def done(self) -> bool:
        return False


CALLER = Caller()


class Lag:
    """How late the event loop is."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def admission_of(
    clock: Clock,
    metrics: Metrics,
    *,
    max_pictures: int = 100,
    max_bytes: int = 1000,
    burst_s: float = 1e6,
    lag: Lag | None = None,
    connections: int = 1000,
) -> Admission:
    return Admission(
        max_pictures=max_pictures,
        max_bytes=max_bytes,
        burst_s=burst_s,
        metrics=metrics,
        clock=clock,
        lag=lag or Lag(),
        connections=lambda: connections,
    )


def answer_at(admission: Admission, clock: Clock, *, pictures: int, seconds: float) -> None:
    """Answer so many pictures within so many seconds, so that the rate is known. One more is held all the while, and
    after: the worker is never idle."""
    admission.enter(CALLER)
    for _ in range(pictures):
        admission.enter(CALLER)
        clock.now += seconds / pictures
        leave(admission)


def leave(admission: Admission) -> None:
    """Give back what was taken first of all that is held."""
    next(iter(admission.leases)).end()


def fill(admission: Admission) -> int:
    """Enter one picture after another until one is refused, and return how many are held."""
    with contextlib.suppress(Overloaded):
        while True:
            admission.enter(CALLER)
    return admission.pending


def refused(metrics: Metrics) -> float:
    return metrics.read()["imageclass_dropped"][("refused",)][0]


async def test_what_fits_is_admitted_and_gives_its_place_back(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=3)
    with places(admission, 2), places(admission):
        assert admission.pending == 3
        assert metrics.read()["imageclass_pending_pictures"][()] == [3]
    assert admission.pending == 0
    assert metrics.read()["imageclass_pending_pictures"][()] == [0]


async def test_one_more_than_fits_is_refused_counted_and_takes_no_place(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=3)
    with places(admission, 2), pytest.raises(Overloaded, match="The service is overloaded"), places(admission, 2):
        raise AssertionError("admitted")
    assert admission.pending == 0
    assert refused(metrics) == 2


async def test_a_place_comes_back_after_a_failure(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=1)
    with pytest.raises(KeyError), places(admission):
        raise KeyError
    assert admission.pending == 0


def test_retry_after_is_how_long_what_is_held_takes_at_the_rate_of_now(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    for _ in range(100):
        admission.enter(CALLER)
    for _ in range(50):  # 4 a second
        clock.now += 0.25
        leave(admission)
    for _ in range(50):
        admission.enter(CALLER)
    with pytest.raises(Overloaded, match="again in 25 s") as rejection:
        admission.enter(CALLER)
    assert rejection.value.retry_after_s == 25


def test_retry_after_is_a_minute_at_most_and_a_second_at_least(clock: Clock, metrics: Metrics) -> None:
    never = admission_of(clock, metrics, max_pictures=1)
    never.enter(CALLER)
    with pytest.raises(Overloaded) as unknown:
        never.enter(CALLER)
    assert unknown.value.retry_after_s == 1
    slow = admission_of(clock, metrics, max_pictures=100)
    for _ in range(100):
        slow.enter(CALLER)
    clock.now += 1000
    leave(slow)
    slow.enter(CALLER)
    with pytest.raises(Overloaded) as long:
        slow.enter(CALLER)
    assert long.value.retry_after_s == 60


def test_a_burst_up_to_the_bound_is_taken_whatever_the_rate(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    answer_at(admission, clock, pictures=100, seconds=1)
    assert fill(admission) == 100


def test_no_burst_is_taken_that_could_not_be_answered_in_time(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100, burst_s=5)
    answer_at(admission, clock, pictures=16, seconds=2)
    assert fill(admission) == 40


async def test_the_rate_is_that_of_a_busy_worker_not_of_a_quiet_day(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100, burst_s=5)
    for _ in range(100):
        with places(admission):
            clock.now += 0.125
        clock.now += 60
    assert fill(admission) == 40


def test_under_overload_no_more_is_held_than_is_answered_in_a_few_milliseconds(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    answer_at(admission, clock, pictures=2000, seconds=1)
    fill(admission)
    assert admission.overloaded
    for _ in range(95):
        leave(admission)
    assert fill(admission) == 8  # 4 ms at 2,000 a second


def test_a_slow_model_still_holds_what_runs_and_what_is_next(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    answer_at(admission, clock, pictures=10, seconds=1)
    fill(admission)
    for _ in range(100):
        leave(admission)
    assert fill(admission) == 2


def test_under_overload_many_pictures_are_admitted_whenever_a_single_one_would_be(
    clock: Clock, metrics: Metrics
) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    fill(admission)
    for _ in range(100):
        leave(admission)
    admission.enter(CALLER, 64)
    assert admission.pending == 64
    with pytest.raises(Overloaded):
        admission.enter(CALLER)


def test_bursts_are_taken_again_once_hardly_anything_is_refused(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    answer_at(admission, clock, pictures=2000, seconds=1)
    fill(admission)
    for _ in range(100):
        leave(admission)
    assert fill(admission) == 8
    clock.now += 0.6  # in which nothing was refused
    assert fill(admission) == 100


def test_while_many_are_refused_overload_goes_on(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    answer_at(admission, clock, pictures=2000, seconds=1)
    fill(admission)
    for _ in range(90):
        leave(admission)
    held = []
    for _ in range(200):  # 0.01 s each: 20 answered, 40 asked
        for _ in range(min(20, admission.pending)):
            leave(admission)
        for _ in range(40):
            with contextlib.suppress(Overloaded):
                admission.enter(CALLER)
        held.append(admission.pending)
        clock.now += 0.01
    assert admission.overloaded
    assert max(held) <= 20


def test_bytes_are_bounded_but_an_idle_worker_takes_any_picture(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_bytes=1000)
    admission.enter(CALLER, size=5000)
    with pytest.raises(Overloaded, match="holds 5,000 bytes"):
        admission.enter(CALLER, size=1)
    assert (admission.pending, admission.pending_bytes, refused(metrics)) == (1, 5000, 1)
    leave(admission)
    admission.enter(CALLER, size=600)
    admission.enter(CALLER, size=400)
    with pytest.raises(Overloaded):
        admission.hold(CALLER, 1)
    assert metrics.read()["imageclass_pending_bytes"][()] == [1000]


async def test_a_body_is_counted_as_it_arrives_and_given_back_however_its_reading_ends(
    clock: Clock, metrics: Metrics
) -> None:
    admission = admission_of(clock, metrics, max_bytes=1000)
    with admission.receive() as other:
        other(600)
        with contextlib.suppress(Overloaded), admission.receive() as received:
            received(300)
            assert admission.pending_bytes == 900
            received(101)
            raise AssertionError("counted")
        assert admission.pending_bytes == 600
    assert admission.pending_bytes == 0


async def test_a_body_above_the_bound_is_taken_in_pieces_if_nothing_else_is_held(
    clock: Clock, metrics: Metrics
) -> None:
    admission = admission_of(clock, metrics, max_bytes=1000)
    with admission.receive() as received:
        received(5000)
        received(5000)
        received(0)
        with pytest.raises(Overloaded), admission.receive() as other:
            other(1)
    assert admission.pending_bytes == 0


def test_a_lease_gives_back_once_however_often_it_ends(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics)
    lease, other = admission.enter(CALLER, 2, size=10), admission.enter(CALLER, size=5)
    lease.end()
    lease.end()
    lease.hold(100)
    assert (admission.pending, admission.pending_bytes, list(admission.leases)) == (1, 5, [other])


async def test_a_body_is_not_read_where_its_picture_would_be_refused(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=1)
    admission.enter(CALLER)
    with pytest.raises(Overloaded), admission.receive():
        raise AssertionError("read")


def test_under_overload_waiting_work_runs_before_any_request_is_rejected(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100)
    admission.enough = 16
    fill(admission)
    for _ in range(100):
        leave(admission)

    def run() -> None:
        for _ in range(16):
            leave(admission)

    admission.relieve = run
    for _ in range(1000):
        admission.enter(CALLER)
        assert admission.pending <= 16


def test_under_overload_what_the_event_loop_comes_to_late_is_refused(clock: Clock, metrics: Metrics) -> None:
    lag = Lag()
    admission = admission_of(clock, metrics, max_pictures=100, lag=lag)
    lag.seconds = 1
    for _ in range(100):
        admission.enter(CALLER)  # calm: a crowd that arrives at once
    with pytest.raises(Overloaded):
        admission.enter(CALLER)
    for _ in range(100):
        leave(admission)
    with pytest.raises(Overloaded):
        admission.enter(CALLER)
    lag.seconds = 0.001
    admission.enter(CALLER)


def test_a_few_connections_that_ask_again_and_again_are_no_overload(clock: Clock, metrics: Metrics) -> None:
    admission = admission_of(clock, metrics, max_pictures=100, connections=100)
    fill(admission)
    assert not admission.overloaded
    assert admission.pending == 100


def test_overload_is_over_when_no_more_are_connected_than_may_wait(clock: Clock, metrics: Metrics) -> None:
    connected = [1000]
    admission = Admission(
        max_pictures=100,
        max_bytes=1000,
        burst_s=1e6,
        metrics=metrics,
        clock=clock,
        lag=Lag(),
        connections=lambda: connected[0],
    )
    fill(admission)
    assert admission.overloaded
    connected[0] = 10
    clock.now += 0.3
    for _ in range(90):
        leave(admission)
    fill(admission)
    assert not admission.overloaded


def test_an_explanation_takes_a_place_but_says_nothing_of_the_rate(clock: Clock, metrics: Metrics) -> None:
    admission = Admission(
        max_pictures=100, max_bytes=1000, burst_s=2.0, metrics=metrics, max_explanations=1, clock=clock, lag=Lag(),
        connections=lambda: 1000,
    )  # fmt: skip
    explanation = admission.enter(CALLER, explains=True)
    assert admission.pending == 1
    with pytest.raises(Overloaded, match="as many explanations as it may"):
        admission.enter(CALLER, explains=True)
    for _ in range(10):  # hardly busy: 10 pictures in 100 s, each of which takes 10 ms
        clock.now += 10
        lease = admission.enter(CALLER)
        clock.now += 0.01
        lease.end()
    leases = [admission.enter(CALLER) for _ in range(99)]
    assert not admission.overloaded
    for lease in leases:
        lease.end()
    explanation.end()
    admission.enter(CALLER, explains=True).end()
    assert admission.pending == 0
