"""The commands of the guides to Kubernetes, as they stand there, on a cluster of one node."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.earlier import for_this_cluster
from tests.cluster.node import MACHINE, NAME, Node
from tests.deploy.manifests import one
from tests.end_to_end.callers import Callers, free_port, is_ready, post, until
from tests.end_to_end.compose import copy_of_sources
from tests.end_to_end.pages import REPOSITORY, opened, run
from tests.s3_server import KEYS, S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.docker]

_IMAGE = "registry.example.org/me/imageclass:2026-11-26"
_PICTURE = REPOSITORY / "tests" / "data" / "7-00000.png"
_UPDATE_S = 300
_GROUP = one("model-copy", "Pod")["spec"]["securityContext"]["fsGroup"]
"""The volume's group, as storage that several nodes can mount sets it; for a local volume only the first pod does."""
_VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "models"},
    "spec": {
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteMany"],
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}]}
                ]
            }
        },
    },
}
"""What stands for storage that several nodes can mount: a folder of the one node."""


@dataclass(frozen=True)
class Guide:
    """What the commands of the first guide have left, and what its `curl` has printed."""

    node: Node
    folder: Path
    definitions: str
    printed: str

    def run(self, script: str, **variables: str) -> str:
        return run(f"set -e\n{self.definitions}\n{script}", self.folder, **self.node.environment, **variables)


@pytest.fixture(scope="module")
def guide(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    """The guide's commands, in a copy of the sources; the registry and the local port are the tests' own."""
    folder = copy_of_sources(tmp_path_factory.mktemp("guide") / "sources")
    (folder / "tests" / "data").mkdir(parents=True)
    shutil.copy(_PICTURE, folder / "tests" / "data")
    for_this_cluster(folder / "deploy" / "kubernetes" / "generated")
    models = tmp_path_factory.mktemp("models")
    os.chown(models, 0, _GROUP)
    models.chmod(0o2775)
    volume = json.loads(json.dumps(_VOLUME))
    volume["spec"]["local"] = {"path": str(models)}
    node.kubectl("create", "--filename=-", given=json.dumps(volume))
    port = free_port()
    with opened("docs/how-to/kubernetes.md") as page:
        image = page.commands("IMAGE=")[0].replace(_IMAGE, f"{node.registry}/me/imageclass:2026-11-26")
        ours = page.commands("ours() ")[0]
        forward = page.commands("kubectl port-forward")[0].replace("8000:80", f"{port}:80").removesuffix(" &")
        curl = page.commands("curl ")[0]
        others = page.commands()
    definitions = f"{image}\n{ours}"
    run("\n".join(["set -e", definitions, *others]), folder, **node.environment)
    with subprocess.Popen(forward.split(), env={**os.environ, **node.environment}, stdout=subprocess.DEVNULL) as tunnel:
        try:
            url = f"http://127.0.0.1:{port}"
            until(lambda: is_ready(url))
            printed = run(curl, folder, url=url)
        finally:
            tunnel.terminate()
    yield Guide(node, folder, definitions, printed)
    run(f"{image}\ndocker rmi $IMAGE", folder)


def _address_of_service(node: Node) -> tuple[str, int]:
    return node.kubectl("get", "service", "image-classifier", "--output=jsonpath={.spec.clusterIP}"), 80


def _pods(node: Node) -> list[str]:
    selector = "--selector=app.kubernetes.io/name=image-classifier"
    return node.kubectl("get", "pods", selector, "--output=jsonpath={.items[*].metadata.name}").split()


def _ready_replicas(node: Node) -> int:
    ready = node.kubectl("get", "deployment", "image-classifier", "--output=jsonpath={.status.readyReplicas}")
    return int(ready or 0)


def test_the_guide_ends_with_an_answer(guide: Guide) -> None:
    assert json.loads(guide.printed)["label"] == "7"


def test_the_autoscaler_brings_up_the_least_number_of_replicas(guide: Guide) -> None:
    until(lambda: _ready_replicas(guide.node) == 2, _UPDATE_S)


def test_a_rolling_update_loses_no_request(guide: Guide) -> None:
    until(lambda: _ready_replicas(guide.node) == 2, _UPDATE_S)
    before = _pods(guide.node)
    address = _address_of_service(guide.node)
    with Callers(lambda: address, post(_PICTURE.read_bytes()), count=2) as callers:
        callers.wait_for_answers(100)
        guide.run(
            "kubectl rollout restart deployment/image-classifier && kubectl rollout status deployment/image-classifier"
        )
        until(lambda: len(_pods(guide.node)) == 2, _UPDATE_S)
        callers.wait_for_answers(100)
    print(f"\n{callers.answered:,} answers, longest time without one {callers.longest_stall_s:.2f} s")  # noqa: T201 - shown with -s
    assert not set(before) & set(_pods(guide.node))
    assert callers.failed == {}
    assert len(callers.bodies) == 1


def test_the_disruption_budget_lets_one_replica_go_at_a_time(guide: Guide) -> None:
    until(lambda: _ready_replicas(guide.node) == 2, _UPDATE_S)
    first, second = _pods(guide.node)
    assert _evict(guide.node, first) == ""
    assert "disruption budget" in _evict(guide.node, second)
    until(lambda: _ready_replicas(guide.node) == 2 and first not in _pods(guide.node), _UPDATE_S)


def _evict(node: Node, pod: str) -> str:
    """Ask for a pod's eviction, as `kubectl drain` does, and return why it is not granted."""
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "images"}}
    path = f"/api/v1/namespaces/images/pods/{pod}/eviction"
    try:
        node.kubectl("create", "--raw", path, "--filename=-", given=json.dumps(eviction))
    except RuntimeError as exc:
        return str(exc)
    return ""


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Server]:
    """A bucket that pods can reach."""
    (tmp_path / "s3").mkdir()
    server = S3Server(tmp_path / "s3", MACHINE)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def _namespace(node: Node, name: str) -> Iterator[None]:
    """Make a namespace, and make it the current one, until the end of the block."""
    node.kubectl("create", "namespace", name)
    node.kubectl("config", "set-context", "--current", "--namespace", name)
    try:
        yield
    finally:
        node.kubectl("config", "set-context", "--current", "--namespace", "images")
        node.kubectl("delete", "namespace", name)


def test_replicas_serve_a_bucket_as_the_guide_says(guide: Guide, bucket: S3Server, tmp_path: Path) -> None:
    node = guide.node
    shutil.copytree(
        REPOSITORY / "deploy" / "kubernetes" / "generated",
        guide.folder / "deploy/kubernetes/generated",
        dirs_exist_ok=True,
    )
    for_this_cluster(guide.folder / "deploy/kubernetes/generated", {"AWS_ENDPOINT_URL": bucket.endpoint})
    key, secret = next(iter(KEYS.items()))
    (tmp_path / ".aws").mkdir()
    credentials = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    (tmp_path / ".aws" / "credentials").write_text(credentials, encoding="utf-8")
    with opened("docs/how-to/kubernetes-bucket.md") as page, _namespace(node, "bucket"):
        guide.run("\n".join(page.commands()), HOME=str(tmp_path), **bucket.environment)
        until(lambda: _ready_replicas(node) >= 1, _UPDATE_S)
        address = _address_of_service(node)
        with Callers(lambda: address, post(_PICTURE.read_bytes()), count=1) as callers:
            callers.wait_for_answers(20)
        assert callers.failed == {}
    [body] = callers.bodies
    assert json.loads(body)["label"] == "7"
