"""Prove the containers on a real engine: `docker compose up` serves hardened, `docker compose run training` trains."""

import json
import os
import re
import runpy
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from app.settings import Settings, env_name
from tests.end_to_end.compose import BUILD_TIMEOUT_S, ROOT, ComposeProject, removed_after

SEVEN = ROOT / "tests" / "data" / "7-00000.png"


@pytest.fixture(scope="module")
def project(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    model_store = tmp_path_factory.mktemp("project") / "model_store"
    shutil.copytree(ROOT / "model_store" / "mnist", model_store / "mnist")
    project = ComposeProject(model_store)
    with removed_after(project, "training"):
        project.run("--profile", "training", "build", "--quiet", timeout_s=BUILD_TIMEOUT_S)
        project.run("up", "--detach", "--wait", "--wait-timeout", "90")
        yield project


def _container(project: ComposeProject) -> str:
    [container] = project.containers("service")
    return container


def _in_service(project: ComposeProject, *command: str) -> str:
    return project.run("exec", "--no-TTY", "service", *command)


def _inspect(container: str, template: str) -> str:
    command = ["docker", "inspect", "--format", template, container]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def _status(text: str) -> dict[str, str]:
    """Return /proc/<pid>/status as a mapping."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if line)


def _classify(project: ComposeProject, **parameters: str) -> dict[str, object]:
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


def test_compose_passes_on_what_the_page_about_tracing_names() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    passed = re.findall(r"^ +- (OTEL_\w+)$", text, flags=re.MULTILINE)
    page = (ROOT / "docs" / "how-to" / "tracing.md").read_text(encoding="utf-8")
    assert passed == sorted(passed)
    assert set(re.findall(r"\bOTEL_\w+\b", page)) <= set(passed)


@pytest.mark.parametrize("value", ["9000", "tcp://10.96.0.7:9000"])
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_at_the_port_of_the_service(
    monkeypatch: pytest.MonkeyPatch, value: str, status: int, code: int
) -> None:
    monkeypatch.setenv("IMAGECLASS_PORT", value)
    connect = Mock()
    connect.return_value.getresponse.return_value.status = status
    monkeypatch.setattr("http.client.HTTPConnection", connect)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "docker" / "health.py"))
    assert connect.call_args.args == ("127.0.0.1", Settings.load().port)
    assert end.value.code == code


@pytest.mark.docker
def test_compose_up_starts_the_service_alone_and_healthy(project: ComposeProject) -> None:
    running = project.run("ps", "--services", "--status", "running").split()
    assert running == ["service"]
    assert _inspect(_container(project), "{{.State.Health.Status}}") == "healthy"
    assert httpx.get(f"{project.url}/health", trust_env=False).status_code == 200


@pytest.mark.docker
def test_a_picture_posted_to_the_container_is_classified(project: ComposeProject) -> None:
    answer = _classify(project, model="mnist")
    assert answer["label"] == "7"
    assert answer["model"] == {"name": "mnist", "version": 1}


@pytest.mark.docker
def test_process_1_is_python_without_root_capabilities_or_new_privileges(project: ComposeProject) -> None:
    status = _status(_in_service(project, "cat", "/proc/1/status"))
    assert status["Name"].startswith("python")
    assert set(status["Uid"].split()) == {"10001"}
    assert set(status["Gid"].split()) == {"10001"}
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.docker
def test_nothing_can_be_written_but_temporary_files(project: ComposeProject) -> None:
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
    assert _in_service(project, "python", "-c", attempt).splitlines() == [
        f"/ {read_only}",
        f"/opt/imageclass {read_only}",
        f"/srv/imageclass {read_only}",
        f"/srv/imageclass/model_store {read_only}",
        "/tmp written",
    ]


@pytest.mark.docker
def test_what_is_pulled_from_a_bucket_goes_into_a_volume_that_the_service_can_write(project: ComposeProject) -> None:
    def compose(*arguments: str) -> str:
        files = ("--file", "docker-compose.yml", "--file", "docker-compose.object-storage.yml")
        return project.run(*files, *arguments, IMAGECLASS_MODEL_STORE="s3://models/store")

    services = json.loads(compose("--profile", "replicas", "config", "--format", "json"))["services"]
    for name in ("service", "replica"):
        environment, volumes = services[name]["environment"], services[name]["volumes"]
        assert environment["IMAGECLASS_MODEL_STORE"] == "s3://models/store"
        [volume] = [volume for volume in volumes if volume["target"] == environment["IMAGECLASS_MODEL_CACHE"]]
        assert (volume["type"], volume.get("read_only", False)) == ("volume", False)
        assert services[name]["read_only"]
    compose("run", "--rm", "--no-TTY", "--entrypoint", "mkdir", "service", f"{volume['target']}/written")
    subprocess.run(["docker", "volume", "rm", f"{project.name}_{volume['source']}"], check=True, timeout=30)


@pytest.mark.docker
def test_memory_and_processes_are_limited(project: ComposeProject) -> None:
    memory, processes = _inspect(_container(project), "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}").split()
    assert int(memory) > 0
    assert int(processes) > 0


@pytest.mark.docker
@pytest.mark.slow
def test_a_model_trained_in_the_container_belongs_to_the_stores_owner_and_is_served(project: ComposeProject) -> None:
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
def test_training_runs_as_the_stores_owner_and_without_capabilities(project: ComposeProject, tmp_path: Path) -> None:
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
def test_stop_ends_the_service_with_0_within_its_grace_period(project: ComposeProject) -> None:
    container = _container(project)
    assert _inspect(container, "{{.State.Running}}") == "true"
    before = time.monotonic()
    project.run("stop")
    assert time.monotonic() - before < 25  # of the 30 s after which Docker would kill it
    assert _inspect(container, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    logs = project.run("logs", "--no-log-prefix", "service")
    assert "Traceback" not in logs, logs
