"""The commands of pages about containers, as they stand there, in a copy of the sources, on a real Docker engine."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.contract.location import BucketAddress
from app.object_storage.bucket import Bucket
from tests.conftest import FindProgram
from tests.end_to_end.callers import Callers, address_of, free_port, health, post, total, until
from tests.end_to_end.compose import ComposeProject, copy_of_sources, removed_after
from tests.end_to_end.fleets import Statistics, address_in_docker, answers, docker, publish_again
from tests.end_to_end.pages import opened, run
from tests.photos import write_photos
from tests.s3_server import BUCKET, S3Server

pytestmark = [pytest.mark.docker, pytest.mark.long]

REPLICAS = 3
"""As many as there are if nothing is set."""
MORE_REPLICAS = 5


_STAND_INS = """
services:
  prometheus:
    image: !reset null
    build:
      context: stand-ins
      dockerfile_inline: |
        FROM debian:bookworm-slim
        COPY prometheus /bin/prometheus
        RUN install --directory --owner 65534 --group 65534 /prometheus
        USER 65534:65534
        ENTRYPOINT ["/bin/prometheus"]
  grafana:
    image: !reset null
    build:
      context: stand-ins
      dockerfile_inline: |
        FROM python:3.12-slim
        RUN install --directory --owner 472 --group 0 /var/lib/grafana
        USER 472:0
        STOPSIGNAL SIGINT
        CMD ["python", "-m", "http.server", "3000", "--directory", "/etc/grafana"]
"""
"""In place of images that the tests do not pull: Debian's Prometheus, and for Grafana what serves the files it gets."""


@pytest.fixture
def project(engine: None, tmp_path: Path) -> Iterator[ComposeProject]:
    """A copy of the sources as a Compose project. The service has the same port as the proxy: one of them runs."""
    folder = copy_of_sources(tmp_path / "sources")
    port = free_port()
    project = ComposeProject(folder / "model_store", port=port, variables={"PROXY_PORT": str(port)}, folder=folder)
    with removed_after(project, "*"):
        yield project


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.fixture
def s3_server(engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A real S3 server that containers can reach. The environment has its address and keys."""
    (tmp_path / "s3").mkdir()
    gateway = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    server = S3Server(tmp_path / "s3", gateway)
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    Bucket(BucketAddress(f"s3://{BUCKET}")).upload("made", b"")
    yield server
    server.stop()


def classify(url: str, picture: bytes, **parameters: str) -> str:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        answer = client.post("/predict", params=parameters, files={"file": picture}).json()
    return f"{answer['model']['name']} says {answer['label']}"


def containers(project: ComposeProject) -> dict[str, list[str]]:
    """Return how each container of a service is: "running", or "exited" with its code."""
    found: dict[str, list[str]] = {}
    listed = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={project.name}")
    for container in listed.split():
        status = docker(
            "inspect",
            "--format",
            '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.ExitCode}}',
            container,
        )
        service, state, code = status.split()
        found.setdefault(service, []).append(state if state == "running" else f"{state} {code}")
    return found


def statistics_of(project: ComposeProject, backend: str = "replicas") -> Statistics:
    until(lambda: answers(project.url))
    [proxy] = project.containers("proxy")
    return Statistics(f"http://{address_in_docker(proxy)}:8405", backend)


def settings_of_shell(command: str) -> dict[str, str]:
    """Return what a command such as `export A=b C=d` sets."""
    return dict(setting.split("=", 1) for setting in command.removeprefix("export ").split())


def predictions_of(project: ComposeProject, service: str) -> float:
    """Return how many requests for a prediction the one container of a service has answered."""
    [container] = project.containers(service)
    page = httpx.get(f"http://{address_in_docker(container)}:8000/metrics", trust_env=False).text
    return total(page, "imageclass_requests_total", route="/predict", status="200")


def on_port(command: str, port: int) -> str:
    return command.replace("PORT=9000", f"PORT={port}")


def test_the_service_and_trainings_run_in_containers(project: ComposeProject, seven: bytes, log: Path) -> None:
    write_photos(project.folder / "pictures", ["cats", "dogs"], of_each=20)
    with opened("docs/how-to/container.md") as page:
        up, for_others, digits, own_pictures = page.commands()
    for fit in (digits, f"{own_pictures} --size 32"):
        run(f"{fit} --preset seed --epochs 1 --no-report", project.folder, **project.environment)
    from_another_address = f"http://127.0.0.2:{project.port}"

    with project.in_foreground(up, log):
        assert classify(project.url, seven, model="mnist") == "mnist says 7"
        assert classify(project.url, seven, model="digits").startswith("digits says ")
        assert classify(project.url, seven, model="mine") in ("mine says cats", "mine says dogs")
        assert containers(project) == {"service": ["running"]}
        assert not answers(from_another_address)
    assert containers(project) == {"service": ["exited 0"]}

    with project.in_foreground(on_port(for_others, project.port), log, from_another_address):
        assert classify(from_another_address, seven, model="mnist") == "mnist says 7"
    assert containers(project) == {"service": ["exited 0"]}


def test_replicas_are_run_behind_a_proxy_and_changed_without_a_loss(
    project: ComposeProject, seven: bytes, log: Path
) -> None:
    with opened("docs/how-to/replicas.md") as page:
        page.commands("REPLICAS=images.internal")  # test_haproxy.py runs this one
        up, more, down, build, roll, restart, another_proxy, reload, scale = page.commands()
    from_another_address = f"http://127.0.0.2:{project.port}"

    with project.in_foreground(up, log):
        statistics_of(project).wait_for_servers(REPLICAS)
        assert classify(project.url, seven) == "mnist says 7"
        assert containers(project) == {"proxy": ["running"], "replica": ["running"] * REPLICAS}
        assert not answers(from_another_address)
    with project.in_foreground(on_port(more, project.port), log, from_another_address):
        statistics_of(project).wait_for_servers(MORE_REPLICAS)
        assert classify(from_another_address, seven) == "mnist says 7"
    run(down, project.folder, **project.environment)
    assert containers(project) == {}

    def change(command: str) -> None:
        run(command, project.folder, **project.environment)

    project.run("up", "--detach", "--wait", "proxy")
    statistics_of(project).wait_for_servers(REPLICAS)
    before = project.containers("replica")
    with Callers(lambda: address_of(project.url), post(seven), count=2) as callers:
        change(build)
        change(roll)
        replicas = project.containers("replica")
        assert len(replicas) == REPLICAS
        assert set(replicas).isdisjoint(before)
        change(restart)
        until(lambda: all('"restarted"' in docker("logs", replica) for replica in replicas))
        callers.wait_for_answers(100)
    assert callers.failed == {}

    with (project.folder / "deploy" / "haproxy" / "clients.cfg").open("a") as configuration:
        configuration.write("    http-response set-header proxy another\n")
    change(another_proxy)
    statistics = statistics_of(project)
    statistics.wait_for_servers(REPLICAS)
    assert httpx.get(f"{project.url}/health", trust_env=False).headers["proxy"] == "another"

    with Callers(lambda: address_of(project.url), post(seven), count=2) as callers:
        with statistics.another_process():
            change(reload)
        change(scale)
        statistics.wait_for_servers(MORE_REPLICAS)
        callers.wait_for_answers(100)
    assert callers.failed == {}


def test_containers_serve_from_a_bucket_and_pull_once(
    project: ComposeProject, s3_server: S3Server, seven: bytes, log: Path
) -> None:
    with opened("docs/how-to/object-storage.md") as page:
        _, push, _, _, settings, up, _ = page.commands()  # test_object_storage.py runs the others
    up, comment = up.split("#")
    assert "`up proxy`" in comment
    run(push, project.folder)

    def reachable() -> object:
        store: Any = health(project.url)[1]["store"]
        assert store["kind"] == "s3"
        return store["reachable"]

    with_volume = replace(project, variables=settings_of_shell(settings))
    with removed_after(with_volume, "*"):
        with project.in_foreground(f"{settings}\n{up} proxy", log):
            statistics_of(project).wait_for_servers(REPLICAS)
            assert classify(project.url, seven) == "mnist says 7"
            logs = "".join(docker("logs", replica) for replica in project.containers("replica"))
            assert logs.count('"version pulled"') == 1
        with_volume.run("--profile", "replicas", "down")  # the volume stays
        with s3_server.outage(), project.in_foreground(f"{settings}\n{up}", log):
            assert classify(project.url, seven) == "mnist says 7"
            assert reachable() is False
    assert containers(project) == {}


def test_a_canary_gets_its_share_and_is_stopped_without_a_loss(project: ComposeProject, seven: bytes) -> None:
    with opened("docs/how-to/canary.md") as page:
        copy, start, use, stop = page.commands()
    project.run("up", "--detach", "--wait", "proxy")

    run(copy, project.folder)
    publish_again(project.folder / "canary_store", 2)
    run(start, project.folder, **project.environment)
    run(use, project.folder, **project.environment)
    statistics_of(project, "canary").wait_for_servers(1 + REPLICAS)  # which are its backup
    with Callers(lambda: address_of(project.url), post(seven), count=4) as callers:
        callers.wait_for_answers(1500)
        versions = Counter(json.loads(body)["model"]["version"] for body in callers.bodies.elements())
        run(stop, project.folder, **project.environment)
        callers.bodies.clear()
        callers.wait_for_answers(300)
        afterwards = {json.loads(body)["model"]["version"] for body in callers.bodies}
    assert callers.failed == {}
    assert versions.keys() == {1, 2}
    assert 0.02 < versions[2] / versions.total() < 0.08
    assert afterwards == {1}
    assert containers(project)["canary"] == ["exited 0"]


def test_a_shadow_gets_copies_until_it_is_stopped(project: ComposeProject, seven: bytes) -> None:
    with opened("docs/how-to/shadow.md") as page:
        copy, start, look_up_again, stop = page.commands()
    run(copy, project.folder)
    publish_again(project.folder / "shadow_store", 2)
    run(start, project.folder, **project.environment)
    statistics_of(project, "mirror").wait_for_servers(1 + REPLICAS)  # which are its backup

    def copied() -> int:
        """Ask some times, and return how many copies the shadow has answered by then."""
        for _ in range(20):
            with httpx.Client(base_url=project.url, trust_env=False, timeout=30) as client:
                answer = client.post("/predict", content=seven, headers={"content-type": "image/png"}).json()
            assert (answer["label"], answer["model"]["version"]) == ("7", 1)
        return int(predictions_of(project, "shadow"))

    assert copied() == 20
    project.run("rm", "--stop", "--force", "shadow")
    # Its address is another replica's now, so the next shadow has another one.
    project.run(
        "--profile", "replicas", "up", "--detach", "--no-recreate", "--no-deps", "--scale", "replica=4", "replica"
    )
    project.run("up", "--detach", "--wait", "--no-deps", "shadow")
    assert copied() == 0
    run(look_up_again, project.folder, **project.environment)
    until(lambda: copied() > 0)
    with Callers(lambda: address_of(project.url), post(seven), count=4) as callers:
        callers.wait_for_answers(100)
        run(stop, project.folder, **project.environment)
        callers.wait_for_answers(300)
    assert sum(callers.failed.values()) <= 4  # those that were just arriving at nginx
    assert (containers(project)["mirror"], containers(project)["shadow"]) == (["exited 0"], ["exited 0"])


def test_prometheus_scrapes_the_service_and_grafana_gets_its_files(
    project: ComposeProject, program: FindProgram, seven: bytes, log: Path
) -> None:
    with opened("docs/how-to/monitoring.md") as page:
        [up] = page.commands()
    (project.folder / "stand-ins").mkdir()
    shutil.copy(program("prometheus"), project.folder / "stand-ins" / "prometheus")
    (project.folder / "stand-ins.yml").write_text(_STAND_INS)
    ports = {"PROMETHEUS_PORT": str(free_port()), "GRAFANA_PORT": str(free_port())}
    files = {"COMPOSE_FILE": "docker-compose.yml:stand-ins.yml"}
    monitored = replace(project, variables={**project.variables, **ports, **files})
    prometheus, grafana = (f"http://127.0.0.1:{port}" for port in ports.values())

    def ask(url: str, **parameters: str) -> Any:
        answer = httpx.get(url, params=parameters, trust_env=False)
        assert answer.status_code == 200, answer.text
        return yaml.safe_load(answer.text)

    def found(query: str) -> list[float]:
        result = ask(f"{prometheus}/api/v1/query", query=query)["data"]["result"]
        return [float(series["value"][1]) for series in result]

    def health_of_rules() -> set[str]:
        groups = ask(f"{prometheus}/api/v1/rules")["data"]["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    with removed_after(monitored, "*"):
        with monitored.in_foreground(up, log):
            assert classify(monitored.url, seven) == "mnist says 7"
            until(lambda: answers(prometheus) and answers(grafana))
            until(lambda: found('up{job="imageclass"}') == [1])
            until(lambda: found('sum(imageclass_requests_total{route="/predict",status="200"})') == [1])
            until(lambda: health_of_rules() == {"ok"})
            [source] = ask(f"{grafana}/provisioning/datasources/prometheus.yml")["datasources"]
            [provider] = ask(f"{grafana}/provisioning/dashboards/imageclass.yml")["providers"]
            dashboards = Path(provider["options"]["path"]).relative_to("/etc/grafana")
            assert ask(f"{grafana}/{dashboards}/overview.json")["panels"]
            asked = f"import urllib.request as r; print(r.urlopen('{source['url']}/-/ready').status)"
            assert monitored.run("exec", "--no-TTY", "grafana", "python", "-c", asked).strip() == "200"
        assert containers(project) == {name: ["exited 0"] for name in ("service", "prometheus", "grafana")}
