"""Prove the containers on a real engine: `docker compose up` serves hardened, `docker compose run training` trains."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.settings import Settings, env_name

ROOT = Path(__file__).parents[2]
SEVEN = ROOT / "tests" / "data" / "7-00000.png"
BUILD_TIMEOUT_S = 1800  # without any cache, TensorFlow alone is a download of 570 MB


def _why_no_engine() -> str:
    """Return why containers cannot be tested here; empty where they can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except subprocess.TimeoutExpired:
            return f"`{' '.join(command)}` does not answer within 30 s"
        if done.returncode != 0:
            reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            return f"`{' '.join(command)}` fails: {reason}"
    return ""


@pytest.fixture(scope="module")
def engine() -> None:
    if reason := _why_no_engine():
        pytest.skip(f"no Docker engine: {reason}")


@dataclass(frozen=True)
class Project:
    """A Compose project of its own: its name, its port and its copy of the model store collide with nobody's."""

    name: str
    port: int
    model_store: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *arguments: str, timeout_s: float = 120, **environment: str) -> str:
        """Run `docker compose` and return what it printed; a failure shows all of it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("IMAGECLASS_")}
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, *arguments],
            cwd=ROOT,
            env={
                **inherited,
                "BIND": "127.0.0.1",
                "PORT": str(self.port),
                "MODEL_STORE": str(self.model_store),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(
                f"docker compose {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}",
                pytrace=False,
            )
        return done.stdout

    def container(self) -> str:
        return self.run("ps", "--all", "--quiet", "service").strip()

    def in_service(self, *command: str) -> str:
        return self.run("exec", "--no-TTY", "service", *command)


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    model_store = tmp_path_factory.mktemp("project") / "model_store"
    shutil.copytree(ROOT / "model_store" / "mnist", model_store / "mnist")
    project = Project(f"imageclass-test-{uuid.uuid4().hex[:8]}", _free_port(), model_store)
    try:
        project.run("--profile", "training", "build", "--quiet", timeout_s=BUILD_TIMEOUT_S)
        project.run("up", "--detach", "--wait", "--wait-timeout", "90")
        yield project
    finally:
        project.run(
            "--profile", "training", "down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5"
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _inspect(container: str, template: str) -> str:
    command = ["docker", "inspect", "--format", template, container]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def _status(text: str) -> dict[str, str]:
    """Return /proc/<pid>/status as a mapping."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if line)


def _classify(project: Project, **parameters: str) -> dict[str, object]:
    # No proxy that this machine has set is asked for an address of its own.
    picture = (SEVEN.name, SEVEN.read_bytes(), "image/png")
    with httpx.Client(base_url=project.url, trust_env=False, timeout=10) as client:
        response = client.post("/predict", params=parameters, files={"file": picture})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def test_compose_passes_every_setting_on_but_those_that_it_fixes_itself() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    passed = re.findall(r"^ +- (IMAGECLASS_\w+)$", text, flags=re.MULTILINE)
    fixed = {"host", "port", "model_store"}
    assert passed == sorted(env_name(field) for field in Settings.model_fields if field not in fixed)


@pytest.mark.docker
def test_compose_up_starts_the_service_alone_and_healthy(project: Project) -> None:
    running = project.run("ps", "--services", "--status", "running").split()
    assert running == ["service"]
    assert _inspect(project.container(), "{{.State.Health.Status}}") == "healthy"
    assert httpx.get(f"{project.url}/health", trust_env=False).status_code == 200


@pytest.mark.docker
def test_a_picture_posted_to_the_container_is_classified(project: Project) -> None:
    answer = _classify(project, model="mnist")
    assert answer["label"] == "7"
    assert answer["model"] == {"name": "mnist", "version": 1}


@pytest.mark.docker
def test_process_1_is_python_without_root_capabilities_or_new_privileges(project: Project) -> None:
    status = _status(project.in_service("cat", "/proc/1/status"))
    assert status["Name"].startswith("python")
    assert set(status["Uid"].split()) == {"10001"}
    assert set(status["Gid"].split()) == {"10001"}
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.docker
def test_nothing_can_be_written_but_temporary_files(project: Project) -> None:
    attempt = """
import pathlib
for folder in ("/", "/opt/imageclass", "/srv/imageclass", "/srv/imageclass/model_store", "/tmp"):
    try:
        (pathlib.Path(folder) / "written").touch()
    except OSError as exc:
        print(folder, exc.errno)
    else:
        print(folder, "written")
"""
    read_only = 30  # EROFS, not EACCES: the file system says no, whatever the user's rights
    assert project.in_service("python", "-c", attempt).splitlines() == [
        f"/ {read_only}",
        f"/opt/imageclass {read_only}",
        f"/srv/imageclass {read_only}",
        f"/srv/imageclass/model_store {read_only}",
        "/tmp written",
    ]


@pytest.mark.docker
def test_memory_and_processes_are_limited(project: Project) -> None:
    memory, processes = _inspect(project.container(), "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}").split()
    assert int(memory) > 0
    assert int(processes) > 0


@pytest.mark.docker
@pytest.mark.slow
def test_a_model_trained_in_the_container_belongs_to_the_stores_owner_and_is_served(project: Project) -> None:
    # As root, the way CI often runs, the store is given to a user who is neither root nor the service's own.
    if os.geteuid() == 0:
        for path in (project.model_store, *project.model_store.rglob("*")):
            os.chown(path, 4321, 4322)
    owner = project.model_store.stat()

    fit = ("fit", "--data", "digits", "--name", "from-container", "--preset", "seed", "--epochs", "1")
    project.run("run", "--rm", "--no-TTY", "training", *fit, timeout_s=600)

    bundle = project.model_store / "from-container" / "1"
    assert json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["labels"] == [str(n) for n in range(10)]
    written = [bundle.parent, *bundle.parent.rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(owner.st_uid, owner.st_gid)}
    # A change of the environment makes Compose start the service anew, on the store as it is now.
    project.run("up", "--detach", "--wait", "--wait-timeout", "90", IMAGECLASS_MODEL="from-container")
    assert _classify(project)["model"] == {"name": "from-container", "version": 1}


@pytest.mark.docker
def test_training_runs_as_the_stores_owner_and_without_capabilities(project: Project, tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("import pathlib\nprint(pathlib.Path('/proc/self/status').read_text())\n", encoding="utf-8")
    probe.chmod(0o644)
    over_the_command = f"{probe}:/srv/imageclass/training/__main__.py:ro"
    status = _status(project.run("run", "--rm", "--no-TTY", "--volume", over_the_command, "training"))
    owner = project.model_store.stat()
    assert set(status["Uid"].split()) == {str(owner.st_uid)}
    assert set(status["Gid"].split()) == {str(owner.st_gid)}
    assert status["Groups"].strip() == ""
    assert status["NoNewPrivs"] == "1"
    if owner.st_uid != 0:  # the change of user is what takes them away
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


@pytest.mark.docker
def test_stop_ends_the_service_with_0_within_its_grace_period(project: Project) -> None:
    container = project.container()
    assert _inspect(container, "{{.State.Running}}") == "true"
    before = time.monotonic()
    project.run("stop")
    assert time.monotonic() - before < 25  # of the 30 s after which Docker would kill it
    assert _inspect(container, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    logs = project.run("logs", "--no-log-prefix", "service")
    assert "Traceback" not in logs, logs
