"""Workers die, hang and are restarted, the service stops and starts: what was accepted is answered, and nothing else is
lost than what a killed process held in its hands. Real processes, real sockets, two workers."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.end_to_end.callers import (
    TIMEOUT_S,
    Balancer,
    Callers,
    Connection,
    address_of,
    get,
    health,
    post,
)
from tests.end_to_end.conftest import Service, StartService

PNG = {"content-type": "image/png"}

Restarts = int
Record = Callable[[str, object], None]


@pytest.fixture
def restarts(request: pytest.FixtureRequest) -> Restarts:
    return int(request.config.getoption("--restarts"))


@pytest.fixture
def picture(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.fixture
def say(record_property: Record) -> Record:
    """Print a figure, and keep it in the report."""

    def record(name: str, figure: object) -> None:
        record_property(name, figure)
        print(f"\n{name}: {figure}")  # noqa: T201 - shown with -s

    return record


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {TIMEOUT_S} s"
        time.sleep(0.005)


def connect(service: Service) -> socket.socket:
    return socket.create_connection(address_of(service.url), timeout=TIMEOUT_S)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def connections_of(pid: int, port: int) -> int:
    """Return how many connections to the port a process holds."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {f"socket:[{line[9]}]" for line in lines if line[3] == "01" and line[1].endswith(f":{port:04X}")}
    return len(established.intersection(links))


def counted(url: str, name: str) -> float:
    """Return the sum of what /metrics says of a counter, on its route to pictures where it has routes."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    wanted = [line for line in lines if line.startswith(name) and ("route=" not in line or 'route="/predict"' in line)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def ready_workers(url: str) -> object:
    workers = health(url)[1].get("workers")
    return workers.get("ready") if isinstance(workers, dict) else None


# A worker that dies or hangs


def test_a_worker_that_is_killed_loses_what_it_held_and_is_replaced(
    start_service: StartService, trained_store: Path, picture: bytes, say: Record
) -> None:
    service = start_service(trained_store, workers=2)
    address = address_of(service.url)
    assert health(service.url)[1]["workers"] == {"configured": 2, "ready": 2}
    with Callers(lambda: address, post(picture), count=12) as callers:
        callers.wait_for_answers(200)
        victim = max(service.workers, key=lambda worker: connections_of(service.workers[worker], address[1]))
        held = connections_of(service.workers[victim], address[1])
        os.kill(service.workers[victim], signal.SIGKILL)
        wait_until(lambda: ready_workers(service.url) == 1, "/health counts the one that is left")
        wait_until(lambda: ready_workers(service.url) == 2, "/health counts its successor")
        callers.wait_for_answers(200)
    died = service.wait_for("worker died")
    assert (died["worker"], died["reason"]) == (victim, "killed by SIGKILL")
    replaced = service.wait_for("worker replaced", worker=victim)
    assert all(outcome.startswith("broke") for outcome in callers.failed), callers.failed
    assert sum(callers.failed.values()) <= held
    assert len(callers.bodies) == 1, "every answer is the same"
    assert service.stop() == 0
    say("seconds from a worker's end to its successor's readiness", replaced["seconds"])
    say("requests lost with it, of those answered", f"{sum(callers.failed.values())} of {callers.answered}")
    assert replaced["seconds"] < 30


def test_what_is_counted_neither_falls_nor_doubles_when_workers_are_replaced(
    start_service: StartService, trained_store: Path, picture: bytes
) -> None:
    service = start_service(trained_store, workers=2)
    address, url = address_of(service.url), service.url
    totals = [0.0]
    with Callers(lambda: address, post(picture)) as callers:
        callers.wait_for_answers(100)
        totals.append(counted(url, "imageclass_requests_total"))
        os.kill(service.workers[0], signal.SIGKILL)
        while (line := service.next_line())["event"] != "worker replaced":
            assert line["event"] in ("worker died", "model live", "ready")
            totals.append(counted(url, "imageclass_requests_total"))
        service.process.send_signal(signal.SIGHUP)  # for a moment, each worker and its successor count at once
        service.wait_for("restarted")
        callers.wait_for_answers(100)
        totals.append(counted(url, "imageclass_requests_total"))
    assert totals == sorted(totals)
    # Of each connection that broke, one request may be counted and not answered, or answered and not yet counted.
    lost = sum(callers.failed.values())
    wait_until(lambda: counted(url, "imageclass_requests_total") >= callers.answered - lost, "all is counted")
    assert counted(url, "imageclass_requests_total") <= callers.answered + lost
    assert counted(url, "imageclass_worker_starts_total") == 2 + 1 + 2
    assert counted(url, "imageclass_workers_ready") == 2
    assert counted(url, "imageclass_connections") <= 2, "ours, and nobody's who is gone"
    assert service.stop() == 0


def test_one_worker_alone_is_replaced_as_well(start_service: StartService, trained_store: Path) -> None:
    service = start_service(trained_store, workers=1)
    os.kill(service.workers[0], signal.SIGKILL)
    service.wait_for("worker replaced", worker=0)
    assert httpx.get(f"{service.url}/health").json()["workers"] == {"configured": 1, "ready": 1}
    assert service.stop() == 0


def test_a_worker_that_dies_again_and_again_is_started_ever_later(
    start_service: StartService, trained_store: Path
) -> None:
    service = start_service(trained_store, workers=2)
    waits = []
    for _ in range(3):
        os.kill(service.workers[0], signal.SIGKILL)
        while (line := service.next_line())["event"] != "ready":
            waits += [line["seconds"]] if line["event"] == "worker waits" else []
    assert waits == [1.0, 2.0], "the first successor comes at once"
    assert httpx.get(f"{service.url}/health").status_code == 200
    assert service.stop() == 0


def test_a_worker_that_hangs_is_replaced(
    start_service: StartService, trained_store: Path, picture: bytes, say: Record
) -> None:
    service = start_service(trained_store, workers=2, worker_hung_after_s=8)
    address = address_of(service.url)
    os.kill(service.workers[0], signal.SIGSTOP)
    with Callers(lambda: address, post(picture), count=2) as callers:
        wait_until(lambda: ready_workers(service.url) == 1, "/health sees that one hangs")
        died = service.wait_for("worker died", worker=0)
        assert "no heartbeat" in died["reason"]
        replaced = service.wait_for("worker replaced", worker=0)
        callers.wait_for_answers(10)
    say("seconds from its end to its successor's readiness", replaced["seconds"])
    assert service.stop() == 0


def test_a_worker_whose_request_never_ends_is_replaced(
    start_service: StartService, trained_store: Path, picture: bytes
) -> None:
    service = start_service(
        trained_store, module="tests.end_to_end.forgetful", workers=1, receive_timeout_s=0.5, request_timeout_s=0.5
    )
    assert httpx.post(f"{service.url}/predict", content=picture, headers=PNG).status_code == 200
    stuck = service.wait_for("this worker is stuck and is replaced", worker=0)
    assert "longer than any request may live" in stuck["reason"]
    service.wait_for("ready", worker=0)
    assert httpx.post(f"{service.url}/predict", content=picture, headers=PNG).status_code == 200
    assert service.stop() == 0


def test_nobody_is_blamed_where_the_whole_machine_stood_still(
    start_service: StartService, trained_store: Path, picture: bytes
) -> None:
    service = start_service(trained_store, workers=2, worker_hung_after_s=4)
    everyone = [service.process.pid, *service.workers.values()]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)  # time itself is what this is about
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)  # the supervisor goes on first, and looks before the workers have moved
    wait_until(lambda: ready_workers(service.url) == 2, "both go on")
    assert httpx.post(f"{service.url}/predict", content=picture, headers=PNG).status_code == 200
    assert service.stop() == 0
    assert "worker died" not in [line["event"] for line in service.log]


def test_a_worker_that_is_asked_to_leave_has_a_successor_and_loses_nothing(
    start_service: StartService, trained_store: Path, picture: bytes
) -> None:
    service = start_service(trained_store, workers=2)
    address = address_of(service.url)
    with Callers(lambda: address, post(picture)) as callers:
        callers.wait_for_answers(50)
        os.kill(service.workers[1], signal.SIGTERM)
        service.wait_for("ready", worker=1)
        callers.wait_for_answers(50)
    assert callers.failed == {}
    assert service.stop() == 0
    assert "worker died" not in [line["event"] for line in service.log]


def test_a_worker_that_cannot_start_any_more_is_tried_again_while_another_serves(
    start_service: StartService, copy_of_store: Path, picture: bytes
) -> None:
    service = start_service(copy_of_store, workers=2)
    hidden = copy_of_store.rename(copy_of_store.with_name("elsewhere"))
    os.kill(service.workers[0], signal.SIGKILL)
    assert service.wait_for("worker died")["reason"] == "killed by SIGKILL"
    assert "does not exist" in service.wait_for("worker died")["reason"]
    assert httpx.post(f"{service.url}/predict", content=picture, headers=PNG).status_code == 200
    hidden.rename(copy_of_store)
    service.wait_for("worker replaced", worker=0)
    assert service.stop() == 0


def test_workers_end_with_their_supervisor_and_free_the_port(
    start_service: StartService, trained_store: Path, picture: bytes
) -> None:
    service = start_service(trained_store, workers=2)
    address = address_of(service.url)
    with Callers(lambda: address, post(picture), count=2) as callers:
        callers.wait_for_answers(20)
        service.process.kill()
        wait_until(lambda: all(map(has_ended, service.workers.values())), "the workers end")
    assert all(outcome.startswith("not connected") for outcome in callers.failed), "what was accepted was answered"
    service.wait()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(address)


# The end


def test_what_was_sent_before_sigterm_is_answered(
    start_service: StartService, trained_store: Path, opened: ExitStack
) -> None:
    # With time and room enough, on a busy machine too, for all that it holds: none is refused as more than it can do,
    # which a worker says of what it cannot answer within two seconds.
    roomy = {"request_timeout_s": 120, "shutdown_grace_s": 120, "max_pending_bytes": 1 << 32}
    service = start_service(trained_store, workers=2, **roomy)
    large = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (600, 600), np.uint8))[1].tobytes()
    # More than the workers can have begun by then: some wait for a decoder, some in the kernel's queue.
    waiting = [opened.enter_context(connect(service)) for _ in range(40)]
    for sock in waiting:
        sock.sendall(post(large))
    service.process.send_signal(signal.SIGTERM)
    answers = [opened.enter_context(sock.makefile("rb")).read() for sock in waiting]
    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 OK")] == []
    assert service.wait() == 0


def test_during_the_delay_requests_are_taken_while_the_service_is_not_ready(
    start_service: StartService, trained_store: Path, picture: bytes, opened: ExitStack
) -> None:
    service = start_service(trained_store, workers=2, shutdown_delay_s=5)
    kept = opened.enter_context(Connection(address_of(service.url)))
    assert (kept.ask(post(picture))[0], kept.closes) == (200, False)
    service.process.send_signal(signal.SIGTERM)
    service.wait_for("stopping")
    wait_until(lambda: health(service.url)[0] == 503, "not ready")
    assert health(service.url)[1]["code"] == "shutting_down"
    for connection in (kept, opened.enter_context(Connection(address_of(service.url)))):
        assert (connection.ask(post(picture))[0], connection.closes) == (200, True)
    other = opened.enter_context(Connection(address_of(service.url)))
    assert (other.ask(get("/models"))[0], other.closes) == (200, True), "the long way closes, too"
    assert service.wait() == 0


def test_a_request_that_is_on_its_way_on_an_idle_connection_is_answered(
    start_service: StartService, trained_store: Path, picture: bytes, opened: ExitStack
) -> None:
    service = start_service(trained_store, workers=1)
    idle = [opened.enter_context(Connection(address_of(service.url))) for _ in range(4)]
    for connection in idle:
        assert connection.ask(get("/health/live"))[0] == 200
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: idle[0].ask(post(picture))[0] == 200 and idle[0].closes, "the worker knows")
    for connection in idle[1:3]:
        assert (connection.ask(post(picture))[0], connection.closes) == (200, True)
    assert service.wait() == 0, "the one that stays idle does not keep it"


def test_requests_that_take_longer_than_the_grace_end_with_it(
    start_service: StartService, trained_store: Path, picture: bytes, opened: ExitStack
) -> None:
    service = start_service(trained_store, workers=1, shutdown_grace_s=1)
    slow = opened.enter_context(connect(service))
    slow.sendall(post(picture)[:-1])  # and never the last byte
    wait_until(lambda: connections_of(service.workers[0], address_of(service.url)[1]) == 1, "it is accepted")
    assert service.stop() == 0
    assert slow.recv(1000) == b""
    assert "stopped before all was answered" in [line["event"] for line in service.log]


def test_two_sigterms_within_milliseconds_lose_no_half_sent_request(
    start_service: StartService, trained_store: Path, picture: bytes, opened: ExitStack
) -> None:
    service = start_service(trained_store, workers=2)
    connection = opened.enter_context(Connection(address_of(service.url)))
    assert connection.ask(get("/health/live"))[0] == 200
    connection.send(post(picture)[:-1])
    service.process.send_signal(signal.SIGTERM)
    service.wait_for("stopping")
    service.process.send_signal(signal.SIGTERM)
    connection.send(post(picture)[-1:])
    assert connection.answer()[0] == 200
    assert service.wait() == 0, "the end was not forced"


def test_sigterm_to_the_process_and_its_group_is_one_stop_with_its_delay(
    start_service: StartService, trained_store: Path, picture: bytes, opened: ExitStack
) -> None:
    service = start_service(trained_store, workers=2, run_by=["timeout", "600"], shutdown_delay_s=3)
    half_sent = opened.enter_context(Connection(address_of(service.url)))
    assert half_sent.ask(get("/health/live"))[0] == 200
    half_sent.send(post(picture)[:-1])
    service.process.send_signal(signal.SIGTERM)  # which timeout sends on to its child, and then to the group
    service.wait_for("stopping")
    wait_until(lambda: health(service.url)[0] == 503, "not ready")
    new = opened.enter_context(Connection(address_of(service.url)))
    assert (new.ask(post(picture))[0], new.closes) == (200, True)
    half_sent.send(post(picture)[-1:])
    assert (half_sent.answer()[0], half_sent.closes) == (200, True)
    assert service.wait() == 0
    assert "worker leaves" not in [line["event"] for line in service.log]


@pytest.mark.parametrize(
    ("first", "second", "after_s"),
    [(signal.SIGTERM, signal.SIGINT, 0), (signal.SIGINT, signal.SIGINT, 0), (signal.SIGTERM, signal.SIGTERM, 1.1)],
)
def test_a_second_signal_forces_the_end(
    start_service: StartService, trained_store: Path, first: int, second: int, after_s: float
) -> None:
    service = start_service(trained_store, workers=2, shutdown_delay_s=600)
    service.process.send_signal(first)
    service.wait_for("stopping")
    time.sleep(after_s)  # time itself is what this is about
    assert service.stop(second) == 1
    assert service.log[-1]["event"] == "ended by a second signal"
    assert all(map(has_ended, service.workers.values()))


def test_sigterm_while_the_models_load_is_a_clean_stop(start_service: StartService, trained_store: Path) -> None:
    service = start_service(trained_store, workers=2, wait=False)
    service.wait_for("starting")
    assert service.stop() == 0


# Limits


def test_more_connections_than_allowed_wait_until_one_closes(
    start_service: StartService, trained_store: Path, opened: ExitStack
) -> None:
    service = start_service(trained_store, workers=1, max_connections=2)
    first, second = (opened.enter_context(Connection(address_of(service.url))) for _ in range(2))
    for connection in (first, second):
        assert connection.ask(get("/health/live"))[0] == 200
    third = opened.enter_context(connect(service))
    third.sendall(get("/health/live"))
    assert "IMAGECLASS_MAX_CONNECTIONS" in service.wait_for("new connections wait")["reason"]
    assert select.select([third], [], [], 0.3)[0] == []
    assert second.ask(get("/health/live"))[0] == 200
    first.close()
    assert third.recv(15) == b"HTTP/1.1 200 OK"
    assert service.stop() == 0


# Deploys


@pytest.mark.slow
def test_restarts_behind_a_load_balancer_lose_nothing(
    start_service: StartService, trained_store: Path, picture: bytes, restarts: Restarts, say: Record
) -> None:
    settings: dict[str, Any] = {"workers": 2, "shutdown_delay_s": 0.5}
    instances: list[Service] = [start_service(trained_store, **settings) for _ in range(2)]
    with Balancer() as balancer:
        for instance in instances:
            balancer.add(instance.url)
        wait_until(lambda: len(balancer.ready()) == 2, "both instances are ready")
        with Callers(balancer.pick, post(picture)) as callers:
            for _ in range(restarts):
                callers.wait_for_answers(20)
                old = instances.pop(0)
                assert old.stop() == 0
                balancer.remove(old.url)
                instances.append(start_service(trained_store, **settings))
                balancer.add(instances[-1].url)
                wait_until(lambda: len(balancer.ready()) == 2, "both instances are ready again")
    say("requests answered over the restarts", f"{callers.answered} over {restarts}, longest {callers.longest_s:.2f} s")
    assert callers.failed == {}
    assert len(callers.bodies) == 1


@pytest.mark.slow
def test_rolling_restarts_of_the_workers_lose_nothing(
    start_service: StartService, trained_store: Path, picture: bytes, restarts: Restarts, say: Record
) -> None:
    service = start_service(trained_store, workers=2)
    address = address_of(service.url)
    before = set(service.workers.values())
    not_ready = 0
    with Callers(lambda: address, post(picture)) as callers, Callers(lambda: address, get("/health"), count=1) as asked:
        for _ in range(restarts):
            callers.wait_for_answers(20)
            service.process.send_signal(signal.SIGHUP)
            service.wait_for("restarted")
        not_ready = sum(asked.failed.values())
    after = set(service.workers.values())
    say("requests answered over the restarts", f"{callers.answered} over {restarts}, longest {callers.longest_s:.2f} s")
    assert callers.failed == {}
    assert not_ready == 0, "the service is ready all along"
    assert len(after) == 2
    assert not before & after
    assert service.stop() == 0


def test_a_restart_that_cannot_succeed_leaves_the_workers_as_they_are(
    start_service: StartService, copy_of_store: Path, picture: bytes
) -> None:
    service = start_service(copy_of_store, workers=2)
    copy_of_store.rename(copy_of_store.with_name("elsewhere"))
    service.process.send_signal(signal.SIGHUP)
    service.wait_for("restart given up")
    assert health(service.url)[1]["workers"] == {"configured": 2, "ready": 2}
    assert httpx.post(f"{service.url}/predict", content=picture, headers=PNG).status_code == 200
    assert service.stop() == 0


# What the supervisor is


def test_the_supervisor_has_one_thread_so_that_it_can_be_forked(
    start_service: StartService, trained_store: Path
) -> None:
    service = start_service(trained_store, workers=1)
    tasks = [list(Path(f"/proc/{pid}/task").iterdir()) for pid in (service.process.pid, service.workers[0])]
    assert len(tasks[0]) == 1
    assert len(tasks[1]) > 1, "the engine's"
