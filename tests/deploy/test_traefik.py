"""The files of deploy/traefik without Traefik: what they say about each other and about this service."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.settings import Settings

TRAEFIK = Path(__file__).parents[2] / "deploy" / "traefik"
ROUTES = ["clients", "canary", "shadow"]
"""Of these files one lies beside replicas.yml."""


def read(name: str) -> Any:
    return yaml.safe_load((TRAEFIK / f"{name}.yml").read_text("utf-8"))


def routing(name: str) -> dict[str, dict[str, Any]]:
    """Return what Traefik makes of replicas.yml and one of the others: routers, services and so on, by name."""
    merged: dict[str, dict[str, Any]] = {}
    for file in ("replicas", name):
        for kind, things in read(file)["http"].items():
            assert not merged.setdefault(kind, {}).keys() & things.keys()
            merged[kind].update(things)
    return merged


def seconds(text: str) -> float:
    [(number, unit)] = re.findall(r"^(\d+)(ms|s)$", text)
    return int(number) / {"ms": 1000, "s": 1}[unit]


def values(tree: Any, name: str) -> list[Any]:
    """Return what each field of that name has, wherever it is."""
    if not isinstance(tree, dict | list):
        return []
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [value for key, each in pairs for value in ([each] if key == name else values(each, name))]


@pytest.fixture(params=ROUTES)
def http(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return routing(request.param)


def test_the_files_are_those_that_are_tested() -> None:
    assert {file.stem for file in TRAEFIK.iterdir()} == {"traefik", "replicas", *ROUTES}


def test_what_is_named_exists_and_is_used(http: dict[str, dict[str, Any]]) -> None:
    routers, services = http["routers"], http["services"]
    [entry_points] = values(routers, "entryPoints")
    assert entry_points == ["clients"]
    assert "clients" in read("traefik")["entryPoints"]
    assert {name for names in values(routers, "middlewares") for name in names} == http["middlewares"].keys()
    assert set(values(services, "serversTransport")) == http["serversTransports"].keys()
    members = [each["name"] for name in ("services", "mirrors") for group in values(services, name) for each in group]
    assert {*values(routers, "service"), *values(services, "service"), *members} == services.keys()


async def test_health_checks_ask_for_a_path_that_the_service_answers(
    http: dict[str, dict[str, Any]], client: httpx.AsyncClient
) -> None:
    for check in filter(None, values(http["services"], "healthCheck")):
        assert check["path"] == "/health/ready"
        assert (await client.get(check["path"])).status_code == 200
        assert seconds(check["timeout"]) < seconds(check["interval"])


def test_a_replica_that_stops_is_seen_to_be_not_ready_before_it_closes_its_port(
    http: dict[str, dict[str, Any]], repository: Path
) -> None:
    check = http["services"]["replicas"]["loadBalancer"]["healthCheck"]
    [delay] = re.findall(r"IMAGECLASS_SHUTDOWN_DELAY_S:-(\d+)", (repository / "docker-compose.yml").read_text("utf-8"))
    assert seconds(check["interval"]) + seconds(check["timeout"]) < int(delay)


def test_times_sizes_and_ports_fit_the_settings(http: dict[str, dict[str, Any]]) -> None:
    settings, traefik = Settings(), read("traefik")
    clients = traefik["entryPoints"]["clients"]["transport"]
    assert seconds(clients["respondingTimeouts"]["readTimeout"]) == settings.receive_timeout_s
    assert seconds(clients["respondingTimeouts"]["idleTimeout"]) == settings.keep_alive_s
    longest = seconds(http["serversTransports"]["replicas"]["forwardingTimeouts"]["responseHeaderTimeout"])
    assert settings.request_timeout_s < longest < seconds(clients["lifeCycle"]["graceTimeOut"])
    assert all(seconds(each) < settings.keep_alive_s for each in values(http["serversTransports"], "idleConnTimeout"))
    assert set(values(http, "maxRequestBodyBytes")) <= {settings.max_batch_bytes}
    assert {httpx.URL(url).port for url in values(http["services"], "url")} == {settings.port}


def test_what_has_reached_a_replica_is_not_sent_again() -> None:
    assert values(routing("clients"), "retry") == [{"attempts": 3}]  # no `status`: that would send it again


def test_a_canary_gets_5_percent_and_a_shadow_a_copy_of_everything() -> None:
    weights = {each["name"]: each["weight"] for each in values(routing("canary"), "weighted")[0]["services"]}
    assert weights == {"replicas": 95, "canary": 5}
    assert values(routing("shadow"), "mirrors") == [[{"name": "shadow", "percent": 100}]]
