"""What HAProxy does with requests by the configuration of deploy/haproxy, before stand-ins for replicas."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import FindProgram
from tests.end_to_end.callers import Connection, address_of, free_port, post, until
from tests.end_to_end.fleets import HaProxy, Statistics, haproxy, running
from tests.end_to_end.names import name_server
from tests.end_to_end.pages import opened
from tests.end_to_end.stand_in import Behaviour, StandIn, never, not_at_all, stand_in, well

Start = Callable[..., tuple[HaProxy, list[StandIn]]]


@pytest.fixture
def start(program: FindProgram, tmp_path: Path) -> Iterator[Start]:
    """Return the function that starts stand-ins that behave so, and the proxy before them."""
    with ExitStack() as stack:

        def start(*behaviours: Behaviour, **variables: object) -> tuple[HaProxy, list[StandIn]]:
            port = free_port()
            places = [(f"127.0.0.{2 + index}", port) for index in range(len(behaviours))]
            servers = [
                stack.enter_context(stand_in(place, behaviour))
                for place, behaviour in zip(places, behaviours, strict=True)
            ]
            names = {"replica": {address for address, _ in places}}
            variables = {"REPLICAS_PORT": port, **variables}
            proxy = stack.enter_context(haproxy(program("haproxy"), "clients.cfg", tmp_path, names, **variables))
            Statistics(proxy.operations).wait_for_servers(len(servers))
            return proxy, servers

        yield start


def test_a_request_that_has_reached_a_replica_is_not_sent_again(start: Start) -> None:
    proxy, servers = start(not_at_all, not_at_all)
    with Connection(address_of(proxy.url)) as connection:
        status, body = connection.ask(post(b"picture"))
    assert (status, b'"replica_lost"' in body) == (502, True)
    assert sum(server.asked for server in servers) == 1


def test_no_more_requests_wait_for_a_replica_than_allowed(start: Start) -> None:
    proxy, [hangs] = start(never, MOST_EACH=2, MOST_QUEUED=3, MOST_QUEUED_FOR="60s")
    with ExitStack() as stack:
        for count in range(1, 6):
            stack.enter_context(Connection(address_of(proxy.url))).send(post(b"picture"))
            until(lambda: hangs.asked + Statistics(proxy.operations).queued() == count)  # noqa: B023 - called at once
        with Connection(address_of(proxy.url)) as connection:
            status, body = connection.ask(post(b"picture"))
    assert (status, b'"overloaded"' in body) == (503, True)
    assert hangs.asked == 2


def test_no_request_waits_for_a_replica_for_longer_than_allowed(start: Start) -> None:
    proxy, [hangs] = start(never, MOST_EACH=1)
    with Connection(address_of(proxy.url)) as first, Connection(address_of(proxy.url)) as second:
        first.send(post(b"picture"))
        until(lambda: hangs.asked == 1)
        status, body = second.ask(post(b"picture"))
    assert (status, b'"overloaded"' in body) == (503, True)
    assert hangs.asked == 1


def test_the_command_of_the_page_finds_the_machines_by_their_name(
    program: FindProgram, repository: Path, tmp_path: Path
) -> None:
    listen, operations, port = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", free_port()
    places = {"LISTEN": listen, "OPERATIONS": operations, "REPLICAS_PORT": str(port)}
    with opened("docs/how-to/replicas.md") as page:
        [command] = page.commands("REPLICAS=images.internal")
        page.commands()  # test_container_how_to.py runs the others
    with (
        name_server({"images.internal": {"127.0.0.2", "127.0.0.3"}}) as nameserver,
        stand_in(("127.0.0.2", port)) as first,
        stand_in(("127.0.0.3", port)) as second,
    ):
        ours = command.replace("10.0.0.2:53", nameserver).replace(" haproxy ", f" {program('haproxy')} ")
        started = ["bash", "-c", f"cd {repository} && exec env {ours}"]
        with running(started, tmp_path / "log", f"http://{operations}/ready", **places):
            Statistics(f"http://{operations}").wait_for_servers(2)
            for _ in range(4):
                assert httpx.post(f"http://{listen}/predict", content=b"picture").status_code == 200
    assert (first.asked, second.asked) == (2, 2)


def test_metrics_of_a_replica_and_of_the_proxy_are_not_for_clients(start: Start) -> None:
    proxy, _ = start(well)
    with httpx.Client(trust_env=False) as client:
        for path in ("/metrics", "/%6detrics", "/metrics?a=b"):
            answer = client.get(proxy.url + path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert client.get(f"{proxy.url}/stats").json() == {"name": "stand-in"}
        assert "haproxy_backend_active_servers" in client.get(f"{proxy.operations}/metrics").text
        assert client.get(f"{proxy.operations}/ready").status_code == 200


def test_the_proxy_is_not_ready_without_a_replica(start: Start) -> None:
    proxy, _ = start()
    assert httpx.get(f"{proxy.operations}/ready", trust_env=False).status_code == 503
    answer = httpx.get(f"{proxy.url}/health", trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
