"""Two nodes of Ray on this machine. `make test-ray` runs these tests; without Ray they are skipped, with the reason."""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lack
from tests.end_to_end.callers import free_port, until

_VARIABLES = {
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "8",
    "RAY_USAGE_STATS_ENABLED": "0",
}
if find_spec("ray") is not None:
    os.environ.update(_VARIABLES)  # Ray reads them when it is imported

STORE_BYTES = 200_000_000


class TwoNodes:
    """A head node with a proxy, and nodes that come and go. Each has a CPU, and room for one replica."""

    def __init__(self, folder: Path) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._folder = folder
        self._cluster = Cluster()
        self.port = free_port()
        self.nodes: list[Any] = []
        os.environ.update(proxy_of(self._folder / "head"))
        self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, include_dashboard=False)
        self.address = self._cluster.address
        ray.init(address=self.address, log_to_driver=False, namespace="serve")

    def add_node(self) -> None:
        variables = proxy_of(self._folder / f"node{time.monotonic_ns()}")
        variables["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(free_port())
        self.nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, env_vars=variables))

    def kill_node(self) -> None:
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()

    @property
    def variables(self) -> dict[str, str]:
        """What `--address auto` needs to find this cluster, and to be let in."""
        return {"RAY_ADDRESS": self.address, **{name: _VARIABLES[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}}


def proxy_of(folder: Path) -> dict[str, str]:
    """Make a folder for a node's proxy. Return what keeps it apart from the proxy of another node on this machine."""
    folder.mkdir()
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder for sockets, whose paths have at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    with short_folder() as folder:
        nodes = TwoNodes(folder)
        try:
            yield nodes
        finally:
            nodes.close()


@pytest.fixture
def shell(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A home and a folder for the commands of a guide, which run with no variables of Ray but those that it exports.

    At the end no process with this home is left.
    """
    if not (repository / ".venv-ray" / "bin" / "serve").exists():
        lack(".venv-ray is not there: run `make setup-ray`")
    for name in list(os.environ):
        if name.startswith(("RAY_", "IMAGECLASS_", "PYTHONPATH")):
            monkeypatch.delenv(name)
    with short_folder() as folder:
        home = folder / "home"
        home.mkdir()
        try:
            yield {"HOME": str(home), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
        finally:
            for process in processes_with("HOME", str(home)):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            until(lambda: not processes_with("HOME", str(home)))


def processes_with(variable: str, value: str) -> list[int]:
    """Return the processes in whose environment a variable has this value."""
    wanted = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found
