"""The service on Ray Serve: the same answers, and what becomes of requests if nodes come, go, and are updated."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.contract.bundle import MANIFEST
from tests.ray.conftest import TwoNodes
from tests.ray.load import Load

pytest.importorskip("ray", reason="Ray is not installed here: make test-ray runs these tests")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # warnings are of Ray's own code

_CLIENTS = 8
_DEADLINE_S = 90


@pytest.fixture(scope="session")
def picture(repository: Path) -> bytes:
    return min((repository / "tests" / "data").glob("0-*.png")).read_bytes()


@pytest.fixture(scope="module")
def started(two_nodes: TwoNodes, repository: Path) -> TwoNodes:
    from ray import serve

    two_nodes.add_node()
    serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": two_nodes.port})
    deploy(repository / "model_store")
    return two_nodes


@pytest.fixture
def deployed(started: TwoNodes) -> TwoNodes:
    """Two nodes, and a replica on each."""
    if not started.nodes:
        started.add_node()
    wait_until(lambda: replicas() == {"RUNNING": 2})
    time.sleep(1)  # the proxy learns of a replica a moment after the controller
    return started


def deploy(store: Path) -> None:
    from ray import serve

    from deploy.ray.serve_app import app

    serve.run(app({"model_store": str(store), "min_replicas": "2", "max_replicas": "2"}), name="imageclass")


def replicas() -> dict[str, int]:
    """Return how many replicas are in each state."""
    from ray import serve

    states = serve.status().applications["imageclass"].deployments["imageclass"].replica_states
    return {str(state): count for state, count in states.items() if count}


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.2)


def asked_without_a_pause(nodes: TwoNodes, picture: bytes) -> Load:
    return Load(nodes.port, "/predict", picture, "image/png", clients=_CLIENTS)


def test_all_protocols_and_errors_are_those_of_the_service(deployed: TwoNodes, picture: bytes) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{deployed.port}") as client:
        form = client.post("/predict", files={"file": picture}).json()
        raw = client.post("/predict", content=picture, headers={"Content-Type": "image/png"}).json()
        assert raw == form
        assert form["label"] == "0"
        batch = client.post("/predict/batch", files=[("files", picture), ("files", picture)]).json()
        assert [each["label"] for each in batch["predictions"]] == ["0", "0"]
        assert client.get("/v2/models/mnist").json()["versions"] == ["1"]
        assert client.get("/v1/models/mnist").json()["model_version_status"][0]["state"] == "AVAILABLE"
        assert client.get("/health/ready").json()["models"][0]["name"] == "mnist"
        junk = client.post("/predict", content=b"junk", headers={"Content-Type": "image/png"})
        assert junk.status_code == 415
        assert set(junk.json()) == {"error", "code", "request_id"}
        assert client.get("/nowhere").json()["code"] == "not_found"


def test_a_killed_node_costs_no_more_than_what_it_held(deployed: TwoNodes, picture: bytes) -> None:
    with asked_without_a_pause(deployed, picture) as load:
        load.wait_for(1000, timeout_s=30)
        deployed.kill_node()
        time.sleep(5)
    print(f"node killed: {load}")
    assert load.failures.total() <= _CLIENTS  # the node held one request of each client at most
    assert set(load.failures) <= {0, 500}  # Ray's proxy answers 500 for a request that was cut off with its replica
    assert load.longest_stall_s < 1


def test_a_node_is_added_without_an_error(deployed: TwoNodes, picture: bytes) -> None:
    deployed.kill_node()
    wait_until(lambda: replicas().get("RUNNING") == 1)
    time.sleep(3)  # what was cut off with the node is another test's
    with asked_without_a_pause(deployed, picture) as load:
        load.wait_for(200, timeout_s=30)
        deployed.add_node()
        wait_until(lambda: replicas() == {"RUNNING": 2})
        load.wait_for(load.answers + 1000, timeout_s=30)
    print(f"node added: {load}")
    assert not load.failures


def test_a_rolling_update_loses_nothing(deployed: TwoNodes, picture: bytes, repository: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(repository / "model_store" / "mnist" / "1", tmp_path / "mnist" / "2")
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_text(json.dumps({**manifest, "version": 2}), encoding="utf-8")
    with asked_without_a_pause(deployed, picture) as load:
        load.wait_for(1000, timeout_s=30)
        deploy(tmp_path)
        load.wait_for(20_000, timeout_s=300)
    print(f"updated: {load}")
    assert not load.failures
    assert load.answers >= 20_000
    assert load.versions[1]
    assert load.versions[2]


@pytest.mark.parametrize(("loads", "wanted"), [([0.0, 0.0], 0), ([0.4, 0.5], 1), ([1.5, 2.0], 4)])
def test_replicas_follow_the_queue(loads: list[float], wanted: int) -> None:
    from deploy.ray.serve_app import replicas_for_the_queue

    context: Any = SimpleNamespace(aggregated_metrics={"load": dict(enumerate(loads))})
    assert replicas_for_the_queue(context) == (wanted, {})
