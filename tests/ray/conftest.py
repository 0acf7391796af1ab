"""Two nodes of Ray on this machine. `make test-ray` runs these tests; without Ray they are skipped, with the reason."""

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

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
        os.environ.update(self._proxy_of("head"))
        self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, include_dashboard=False)
        self.address = self._cluster.address
        ray.init(address=self.address, log_to_driver=False, namespace="serve")

    def add_node(self) -> None:
        variables = self._proxy_of(f"node{time.monotonic_ns()}")
        variables["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(free_port())
        self.nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, env_vars=variables))

    def kill_node(self) -> None:
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()

    def _proxy_of(self, node: str) -> dict[str, str]:
        """Return what keeps the proxies of two nodes on one machine apart."""
        folder = self._folder / node
        folder.mkdir()
        return {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: a socket's path has at most 107 bytes
    nodes = TwoNodes(folder)
    try:
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
