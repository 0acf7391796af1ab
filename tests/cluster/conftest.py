"""A cluster of one node. `make test-cluster` runs these tests; without its programs they are skipped."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.node import PROGRAMS, Node, why_not
from tests.end_to_end.compose import why_no_engine


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A cluster whose registry has the image that every pod begins with."""
    if reason := why_not() or why_no_engine():
        pytest.skip(reason)
    node = Node(tmp_path_factory.mktemp("node"))
    try:
        node.start()
        pause = f"{node.registry}/pause"
        archive = subprocess.run(["tar", "-C", str(PROGRAMS / "bin"), "-c", "pause"], capture_output=True, check=True)
        command = ["docker", "import", "--change", 'ENTRYPOINT ["/pause"]', "-", pause]
        subprocess.run(command, input=archive.stdout, capture_output=True, check=True)
        subprocess.run(["docker", "push", pause], capture_output=True, check=True)
        subprocess.run(["docker", "rmi", pause], capture_output=True, check=True)
        yield node
    finally:
        node.stop()
