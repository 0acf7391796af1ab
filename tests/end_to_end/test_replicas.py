"""Replicas behind HAProxy, asked without a pause while what happens to replicas happens to them.

`make chaos` has each of it last for 100,000 requests, on this machine's processes and on containers.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.contract.store import ModelStore
from tests.conftest import FindProgram
from tests.end_to_end.callers import Callers, address_of, post
from tests.end_to_end.compose import BUILD_TIMEOUT_S, ROOT, ComposeProject, removed_after
from tests.end_to_end.fleets import REPLICAS, ComposeFleet, Fleet, host_fleet, publish_again

CALLERS = 8
_LONGEST_STALL_S = 1.0
_ROW = "{:<52} {:>9} {:>7} {:>5} {:>13} {:>11}\n"


@pytest.fixture(
    scope="module", params=["processes", pytest.param("containers", marks=[pytest.mark.docker, pytest.mark.chaos])]
)
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp(request.param)
    sys.stdout.write(
        f"\n{REPLICAS} replicas as {request.param}, {CALLERS} callers\n"
        + _ROW.format("what happens", "requests", "failed", "held", "longest, ms", "stall, ms")
    )
    if request.param == "processes":
        program: FindProgram = request.getfixturevalue("program")
        with host_fleet(program("haproxy"), ROOT / "model_store", folder) as fleet:
            yield fleet
    else:
        request.getfixturevalue("engine")
        store = Path(shutil.copytree(ROOT / "model_store", folder / "model_store"))
        project = ComposeProject(store, port_variable="PROXY_PORT", variables={"REPLICAS": str(REPLICAS)})
        with removed_after(project, "replicas"):
            project.run("build", "--quiet", "replica", "proxy", timeout_s=BUILD_TIMEOUT_S)
            project.run("up", "--detach", "--wait", "--wait-timeout", "90", "proxy")
            running = project.run("--profile", "replicas", "ps", "--services", "--status", "running").split()
            assert set(running) == {"proxy", "replica"}
            yield ComposeFleet(project)


@pytest.fixture
def picture(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.fixture
def asked(fleet: Fleet, picture: bytes, request: pytest.FixtureRequest) -> Iterator[Callers]:
    """Callers that ask the fleet without a pause. All answers must be right, and in `make chaos` come soon."""
    with Callers(lambda: address_of(fleet.url), post(picture), count=CALLERS) as callers:
        callers.wait_for_answers(300)
        yield callers
        callers.wait_for_answers(300)
    assert all(b'"label":"7"' in body for body in callers.bodies)
    if request.config.getoption("--chaos-requests"):
        assert callers.longest_stall_s < _LONGEST_STALL_S


@pytest.fixture
def enough(asked: Callers, request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Say whether as many requests as the run is for have been answered."""
    wanted = request.config.getoption("--chaos-requests")
    return lambda: asked.answered >= wanted


def tell(what: str, callers: Callers, held: int | str = "") -> None:
    failed = sum(callers.failed.values())
    times = (f"{1000 * seconds:.0f}" for seconds in (callers.longest_s, callers.longest_stall_s))
    sys.stdout.write(_ROW.format(what, callers.answered + failed, failed, held, *times))


def test_a_replica_that_is_killed_loses_no_more_than_it_held(fleet: Fleet, asked: Callers) -> None:
    held = fleet.kill_one()
    asked.wait_for_answers(300)
    tell("one is killed", asked, held)
    # HAProxy answers 502 to the first request of a connection, and closes the connection on a later one.
    assert set(asked.failed) <= {"502", "broke: no answer"}
    assert sum(asked.failed.values()) <= held


@pytest.mark.parametrize(
    ("what", "happens"),
    [
        pytest.param("one is stopped", lambda fleet: fleet.stop_one(), marks=pytest.mark.chaos),  # as of all, below
        ("all are replaced, one after another", lambda fleet: fleet.roll()),
        ("all replace their workers", lambda fleet: fleet.restart_workers()),
        ("the proxy is reloaded", lambda fleet: fleet.reload_proxy()),
    ],
    ids=["stopped", "rolled", "workers", "reloaded"],
)
def test_nothing_is_lost_when(
    fleet: Fleet, asked: Callers, enough: Callable[[], bool], what: str, happens: Callable[[Fleet], None]
) -> None:
    happens(fleet)
    asked.wait_for_answers(300)
    while not enough():
        happens(fleet)
        asked.wait_for_answers(300)
    tell(what, asked)
    assert asked.failed == {}


def test_nothing_is_lost_when_versions_come_and_go(fleet: Fleet, asked: Callers, enough: Callable[[], bool]) -> None:
    store = ModelStore(fleet.store)

    def wait_for_version(version: int) -> None:
        for _ in range(40):
            asked.bodies.clear()
            asked.wait_for_answers(300)
            if all(b'"version":%d}' % version in body for body in asked.bodies):
                return
        pytest.fail(f"version {version} does not answer alone")

    while True:
        publish_again(fleet.store, 2)
        wait_for_version(2)
        store.pin("mnist", 1)
        wait_for_version(1)
        store.remove("mnist", 2)
        store.unpin("mnist")
        asked.wait_for_answers(300)
        if enough():
            break
    tell("a version is published, pulled and removed", asked)
    assert asked.failed == {}
