"""The commands of the guide for Ray, as they stand there. Options keep the two nodes on one machine apart: ports, and
files of the proxies. The cluster's file has a free port."""

import json
import os
import shlex
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import FindProgram, lack
from tests.end_to_end.callers import address_of, free_port, until
from tests.end_to_end.compose import copy_of_sources
from tests.end_to_end.pages import on_terminal, opened, run
from tests.ray.conftest import STORE_BYTES, processes_with, proxy_of
from tests.versions import version_of

pytest.importorskip("ray", reason="Ray is not installed here: make test-ray runs these tests")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # warnings are of Ray's own code

_START_TIMEOUT_S = 120
_DRAINS = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}


def answer(url: str, picture: Path) -> dict[str, Any]:
    """Return the answer of the service; nothing if it is not up. Ray may answer in its place."""
    try:
        found = httpx.post(f"{url}/predict", files={"file": picture.read_bytes()})
    except httpx.TransportError:
        return {}
    return dict(found.json()) if found.status_code == 200 else {}


@pytest.fixture
def seven(data_folder: Path) -> Path:
    return data_folder / "7-00000.png"


@pytest.fixture
def blocks() -> tuple[list[str], list[str]]:
    """The commands for one machine, and those for a cluster. The tests take all of them."""
    with opened("docs/how-to/ray.md") as page:
        commands = page.commands()
    cluster = commands.index("cd imageclass")
    return commands[:cluster], commands[cluster:]


def test_the_service_runs_in_the_foreground_until_ctrl_c(
    blocks: tuple[list[str], list[str]],
    shell: dict[str, str],
    repository: Path,
    tmp_path: Path,
    seven: Path,
    program: FindProgram,
) -> None:
    program("curl")
    export, serve, ask = blocks[0]
    url = "http://127.0.0.1:8000"  # `serve run` has no option for the port
    with socket.socket() as taken:
        if taken.connect_ex(address_of(url)) == 0:
            lack(f"something else listens at {url}")
    log, environment = tmp_path / "log", {**os.environ, **shell, **_DRAINS}
    with on_terminal(
        f"{export}\n{serve}", repository, log, environment, lambda: bool(answer(url, seven)), timeout_s=_START_TIMEOUT_S
    ) as running:
        assert json.loads(run(ask, repository))["label"] == "7"
    assert running.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    until(lambda: not processes_with("HOME", shell["HOME"]))


class Sources:
    """A checkout on every node, and its `serve.yaml`, which has another port and names a folder of the test."""

    def __init__(self, folder: Path, repository: Path) -> None:
        copy_of_sources(folder / "imageclass")
        (folder / "imageclass" / ".venv-ray").symlink_to(repository / ".venv-ray")
        self._file = folder / "imageclass" / "deploy" / "ray" / "serve.yaml"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def serve(self, store: Path) -> None:
        config = yaml.safe_load(self._file.read_text())
        config["http_options"]["port"] = self._port
        [application] = config["applications"]
        application["args"] |= {"model_store": str(store), "min_replicas": 2}
        self._file.write_text(yaml.safe_dump(config))


def test_a_cluster_serves_and_follows_the_file(
    blocks: tuple[list[str], list[str]], shell: dict[str, str], repository: Path, tmp_path: Path, seven: Path
) -> None:
    change_folder, export, make_token, start_head, start_node, deploy, show_status = blocks[1]
    dashboard, gcs = free_port(), free_port()
    asked = {"RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    sources = Sources(tmp_path, repository)

    def shown(command: str, **variables: str) -> str:
        return run(f"{change_folder}\n{export}\n{command}", tmp_path, **shell, **_DRAINS, **variables)

    def start(command: str, name: str, *options: str, **variables: str) -> None:
        """Start a node that has room for one replica."""
        room = ["--num-cpus=1", f"--object-store-memory={STORE_BYTES}"]
        agent = f"--dashboard-agent-listen-port={free_port()}"
        command = shlex.join([*shlex.split(command, comments=True), *options, *room, agent])
        shown(command, **proxy_of(Path(shell["RAY_TMPDIR"]) / name), **variables)

    def status() -> dict[str, Any]:
        return dict(yaml.safe_load(shown(show_status, **asked)))

    def served_by_both(version: int) -> bool:
        found = status()
        applications = found["applications"]
        if not applications or answer(sources.url, seven).get("model") != {"name": "mnist", "version": version}:
            return False
        replicas = applications["imageclass"]["deployments"]["imageclass"]["replica_states"]
        return replicas == {"RUNNING": 2} and list(found["proxies"].values()) == ["HEALTHY"] * 2

    token = shown(make_token).split()
    assert (Path(shell["HOME"]) / ".ray" / "auth_token").read_text() in token
    start(
        start_head, "head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"
    )
    start(
        start_node.replace("FIRST_NODE:6379", f"127.0.0.1:{gcs}"),
        "node",
        RAY_SERVE_WORKER_PROXY_HTTP_PORT=str(free_port()),
    )
    for version in (1, 2):
        version_of(repository / "model_store" / "mnist" / "1", version, tmp_path / f"store{version}")
        sources.serve(tmp_path / f"store{version}")
        shown(deploy, **asked)
        until(lambda version=version: served_by_both(version), timeout_s=_START_TIMEOUT_S)  # type: ignore[misc]
        assert answer(sources.url, seven)["label"] == "7"
