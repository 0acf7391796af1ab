"""The image as Kubernetes and KServe run it, on a real engine: users, mounts, variables, limits and ends."""

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.manifests import one
from tests.end_to_end.callers import until
from tests.end_to_end.compose import BUILD_TIMEOUT_S, ROOT
from tests.end_to_end.fleets import docker, publish_again

pytestmark = [pytest.mark.docker, pytest.mark.long]

_DAY_S = 86_400
_INJECTED = {
    "IMAGECLASS_PORT": "tcp://10.96.0.7:8000",
    "IMAGECLASS_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "IMAGECLASS_PORT_8000_TCP_ADDR": "10.96.0.7",
    "IMAGECLASS_SERVICE_HOST": "10.96.0.7",
    "IMAGECLASS_SERVICE_PORT": "8000",
}
"""What Kubernetes sets in every pod for a Service that is called imageclass."""


class Pod:
    """A container with the rights, mounts and variables of KServe's runtime."""

    def __init__(self, container: str) -> None:
        self.container = container

    @property
    def url(self) -> str:
        return f"http://{docker('port', self.container, '8000/tcp').splitlines()[0]}"

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in docker("logs", self.container).splitlines()]

    def status(self, path: str) -> int:
        """Return what a probe is answered; 0 if nobody answers."""
        try:
            return httpx.get(self.url + path, trust_env=False, timeout=1).status_code
        except httpx.TransportError:
            return 0

    def wait_until_ready(self) -> None:
        until(lambda: self.inspect("{{.State.Running}}") == "true" and self.status("/health/ready") == 200)

    def wait_for_exit(self) -> int:
        return int(docker("wait", self.container))

    def classify(self) -> dict[str, Any]:
        picture = (ROOT / "tests" / "data" / "7-00000.png").read_bytes()
        response = httpx.post(
            f"{self.url}/predict", content=picture, headers={"Content-Type": "image/png"}, trust_env=False
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def inspect(self, template: str) -> str:
        return docker("inspect", "--format", template, self.container)


@pytest.fixture(scope="module")
def image(engine: None) -> str:
    command = ["docker", "build", "--quiet", "--target", "service", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


StartPod = Callable[..., Pod]


@pytest.fixture(scope="module")
def start(image: str) -> Iterator[StartPod]:
    """Return the function that starts a pod on a folder of models."""
    [runtime] = one("kserve", "ServingRuntime")["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in runtime["env"]}
    rights = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
    containers: list[str] = []

    def start_pod(models: Path, *options: str, **given: str) -> Pod:
        user = random.randrange(1_000_000_000, 1_000_700_000)  # noqa: S311 - as OpenShift gives them
        settings = {**variables, "IMAGECLASS_WORKERS": "1", "IMAGECLASS_SHUTDOWN_DELAY_S": "2", **given}
        models.chmod(0o755)
        container = docker(
            "run",
            "--detach",
            *rights,
            f"--user={user}:0",
            f"--mount=type=bind,source={models},target={variables['IMAGECLASS_MODEL_STORE']},readonly",
            "--publish=127.0.0.1::8000",
            *(f"--env={name}={value}" for name, value in settings.items()),
            *options,
            image,
        )
        containers.append(container)
        return Pod(container)

    yield start_pod
    for container in containers:
        docker("rm", "--force", container)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """What KServe's storage initializer leaves: the model in <name>/<version>/, readable by all."""
    shutil.copytree(ROOT / "model_store" / "mnist", tmp_path / "mnist")
    return tmp_path


def date(bundle: Path, when: float) -> None:
    for path in (bundle, *bundle.rglob("*")):
        os.utime(path, (when, when))


@pytest.fixture(scope="module")
def pod(start: StartPod, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    """A pod that serves, beside variables that are not meant for it, without DNS, and with its clock a day behind."""
    models = tmp_path_factory.mktemp("models")
    date(Path(shutil.copytree(ROOT / "model_store" / "mnist", models / "mnist")), time.time() + _DAY_S)
    pod = start(models, "--dns=192.0.2.1", **_INJECTED)
    pod.wait_until_ready()
    return pod


def test_a_random_user_of_group_0_serves_what_it_cannot_write(pod: Pod) -> None:
    assert pod.classify()["label"] == "7"
    assert pod.status("/v2/models/mnist/ready") == 200
    assert docker("exec", pod.container, "sh", "-c", "id -g; touch /x /mnt/models/x 2>&1 | grep -c Read-only") == "0\n2"


def test_variables_that_kubernetes_injects_are_ignored_with_one_warning(pod: Pod) -> None:
    [warning] = [line for line in pod.log if line["level"] == "warning"]
    assert "Kubernetes set IMAGECLASS_PORT=tcp://10.96.0.7:8000" in json.dumps(warning)


def test_the_images_health_check_passes_beside_them(pod: Pod) -> None:
    until(lambda: pod.inspect("{{.State.Health.Status}}") != "starting")
    assert pod.inspect("{{.State.Health.Status}}") == "healthy"


def test_models_that_are_dated_in_the_future_are_served(pod: Pod) -> None:
    assert pod.classify()["model"] == {"name": "mnist", "version": 1}


def test_a_pod_without_dns_starts_and_answers_at_once(pod: Pod) -> None:
    assert "192.0.2.1" in docker("exec", pod.container, "cat", "/etc/resolv.conf")
    began = time.monotonic()
    pod.classify()
    assert time.monotonic() - began < 1


def test_sigterm_while_probes_go_on_is_not_ready_first_and_ends_with_0(pod: Pod) -> None:
    stopping = threading.Thread(target=docker, args=("stop", pod.container))
    url, seen = pod.url, []
    stopping.start()
    with httpx.Client(base_url=url, trust_env=False, timeout=1) as client:
        while stopping.is_alive():
            try:
                seen.append((client.get("/health/ready").status_code, client.get("/health/live").status_code))
            except httpx.TransportError:
                break
            time.sleep(0.05)
    stopping.join()
    assert (503, 200) in seen, "not ready, and alive"
    assert set(seen) <= {(200, 200), (503, 200)}
    assert pod.inspect("{{.State.ExitCode}}") == "0"


def test_a_missing_model_ends_the_pod_with_one_line(start: StartPod, tmp_path: Path) -> None:
    pod = start(tmp_path)
    assert pod.wait_for_exit() == 1
    [error] = [line for line in pod.log if line["level"] == "error"]
    assert "/mnt/models" in error["reason"]
    assert "holds no model" in error["reason"]


def test_a_half_copied_model_ends_the_pod_with_one_line(start: StartPod, models: Path) -> None:
    shutil.rmtree(models / "mnist" / "1" / "variables")
    pod = start(models)
    assert pod.wait_for_exit() == 1
    [error] = [line for line in pod.log if line["level"] == "error"]
    assert "mnist/1" in error["reason"]


def test_a_late_model_is_served_by_a_restart(start: StartPod, models: Path, tmp_path: Path) -> None:
    late = models.joinpath("mnist").rename(tmp_path / ".late")
    pod = start(models, "--restart=on-failure")
    until(lambda: int(pod.inspect("{{.RestartCount}}")) > 0)
    late.rename(models / "mnist")
    pod.wait_until_ready()
    assert pod.classify()["label"] == "7"


def test_a_replaced_model_is_served_whatever_its_date(start: StartPod, models: Path) -> None:
    pod = start(models)
    pod.wait_until_ready()
    publish_again(models, 2)
    date(models / "mnist" / "2", 0)
    until(lambda: pod.classify()["model"]["version"] == 2)
    half = Path(shutil.copytree(models / "mnist" / "2", models / "mnist" / "3"))
    (half / "saved_model.pb").unlink()
    until(lambda: httpx.get(f"{pod.url}/health", trust_env=False).json()["refused"] != [])
    assert pod.classify()["model"]["version"] == 2


def test_a_memory_limit_that_is_reached_is_one_clear_line(start: StartPod, models: Path) -> None:
    pod = start(models, "--memory=80m", "--memory-swap=80m")  # a worker takes 90 to 100 MB
    assert pod.wait_for_exit() == 1
    [error] = [line for line in pod.log if line["level"] == "error"]
    assert "because the memory limit is reached: raise it, or lower IMAGECLASS_WORKERS" in error["reason"]
