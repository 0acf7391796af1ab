"""Debian's Prometheus scrapes a real service under mixed load: every query of dashboards and rules gives data."""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.metrics import FAMILIES
from deploy.monitoring.__main__ import FOLDER
from deploy.monitoring.dashboards import DASHBOARDS
from deploy.monitoring.rules import JOB, alerts, recordings
from tests.conftest import FindProgram
from tests.end_to_end.callers import free_port
from tests.end_to_end.conftest import StartService

_SCRAPE_S = 1
_DEADLINE_S = 60.0
_SELECTOR = re.compile(r"(?:\w+:)?imageclass_[\w:]+(?:\{[^}]*\})?|up\{[^}]*\}")
_QUERIES = {
    f"{board.name}: {panel.title}: {legend}": query
    for board in DASHBOARDS
    for panel in board.panels
    for legend, query in panel.queries.items()
}


def _ask_in_every_way(url: str, picture: bytes, store: Path) -> None:
    """Send pictures, and questions that fail, are refused and come too late; and add a version that is broken."""
    png = {"content-type": "image/png"}
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        shutil.copytree(store / "digits" / "1", store / "digits" / "2")
        (store / "digits" / "2" / "manifest.json").write_text("{}")
        for _ in range(3):
            list(pool.map(lambda _: client.post("/predict", content=picture, headers=png), range(20)))
            client.post("/predict", content=b"no picture", headers=png)
            client.post("/predict", content=picture, headers={**png, "x-request-timeout": "0.000001"})
            many = [("files", ("a.png", picture, "image/png"))] * 9  # above max_pending
            client.post("/predict/batch", files=many)
            client.get("/models/cats")
            time.sleep(_SCRAPE_S)


class Prometheus:
    """A real Prometheus with the rules of deploy/monitoring, which scrapes and evaluates each second."""

    def __init__(self, program: str, folder: Path, target: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": f"{_SCRAPE_S}s", "evaluation_interval": f"{_SCRAPE_S}s"}
        config["rule_files"] = [str(FOLDER / "rules.yml")]
        [scrape] = config["scrape_configs"]
        scrape["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stderr=subprocess.DEVNULL,
        )

    def query(self, expr: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=30)
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def has_data(self, expr: str) -> bool:
        """Say whether a query gives a number: one that is 0 is one."""
        return any(not math.isnan(float(series["value"][1])) for series in self.query(expr))

    def rules(self) -> list[dict[str, Any]]:
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def _eventually(what: str, holds: Callable[[], bool]) -> None:
    """Wait until Prometheus has seen enough; each of its looks is a second after the one before it."""
    end = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < end, f"no data after {_DEADLINE_S:.0f} s: {what}"
        time.sleep(_SCRAPE_S / 2)


def _as_grafana_asks(query: str) -> str:
    for variable in ("job", "instance", "model"):
        query = query.replace(f"${variable}", ".*")
    return query.replace("$__rate_interval", "1m")


@pytest.fixture
def prometheus(
    program: FindProgram, start_service: StartService, copy_of_store: Path, data_folder: Path, tmp_path: Path
) -> Iterator[Prometheus]:
    service = start_service(copy_of_store, max_pending=8, reload_interval_s=0.2)
    started = Prometheus(program("prometheus"), tmp_path, service.url.removeprefix("http://"))
    try:
        _eventually("Prometheus answers and scrapes", lambda: _scrapes(started))
        _ask_in_every_way(service.url, (data_folder / "7-00000.png").read_bytes(), copy_of_store)
        yield started
    finally:
        started.process.terminate()
        started.process.wait(timeout=30)


def _scrapes(prometheus: Prometheus) -> bool:
    try:
        if httpx.get(f"{prometheus.url}/-/ready", timeout=30).status_code != 200:
            return False
        return prometheus.has_data(f'up{{job="{JOB}"}} == 1')
    except httpx.TransportError:
        return False


def test_every_query_of_dashboards_and_rules_gives_data(prometheus: Prometheus) -> None:
    for title, query in _QUERIES.items():
        _eventually(f"{title}: {query}", lambda query=query: prometheus.has_data(_as_grafana_asks(query)))  # type: ignore[misc]
    for record in recordings():
        _eventually(record, lambda record=record: prometheus.has_data(record))  # type: ignore[misc]
    for alert in alerts():  # which are silent or fire: so it is what they compare that must be there
        for selector in _SELECTOR.findall(alert.expr):
            _eventually(f"{alert.name}: {selector}", lambda selector=selector: prometheus.has_data(selector))  # type: ignore[misc]
    rules = prometheus.rules()
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]
    names = {series["metric"]["__name__"] for series in prometheus.query('{__name__=~"imageclass_.+"}')}
    assert {name for name in FAMILIES if not any(found.startswith(name) for found in names)} == set()
