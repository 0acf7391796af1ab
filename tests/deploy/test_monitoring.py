"""The files of deploy/monitoring: made of the registry, readable for Grafana, and each alert fires when it should."""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from app.api.routes.metrics import BUILD_INFO
from app.metrics import FAMILIES
from deploy.monitoring.__main__ import FOLDER, generated
from deploy.monitoring.dashboards import DASHBOARDS
from deploy.monitoring.grafana import grafana_dashboards
from deploy.monitoring.rules import JOB, WINDOWS, alerts, failed_ratio, slow_ratio
from deploy.monitoring.series import Metric, UnknownSeries
from tests.conftest import FindProgram

_AT = f'job="{JOB}",instance="a:8000"'
_OF = f'{_AT},model="digits"'
_SUM, _COUNT = (f"imageclass_top_probability_{part}{{{_OF}}}" for part in ("sum", "count"))
_FELL = {_SUM: "0+9x150 1355+5x150", _COUNT: "0+10x301"}
_STEADY = {_SUM: "0+9x301", _COUNT: "0+10x301"}


CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ImageclassErrorBudgetBurns": (
        {
            f'imageclass_requests_total{{{_AT},route="/predict",status="200"}}': "0+980x100",
            f'imageclass_requests_total{{{_AT},route="/predict",status="503"}}': "0+20x100",
        },
        {
            f'imageclass_requests_total{{{_AT},route="/predict",status="200"}}': "0+10000x100",
            f'imageclass_requests_total{{{_AT},route="/predict",status="503"}}': "0+5x100",
            f'imageclass_requests_total{{{_AT},route="/predict",status="422"}}': "0+900x100",
            f'imageclass_requests_total{{{_AT},route="/health",status="503"}}': "0+900x100",
        },
    ),
    "ImageclassLatencyBudgetBurns": (
        {
            f'imageclass_stage_seconds_bucket{{{_OF},stage="total",le="0.5"}}': "0+80x100",
            f'imageclass_stage_seconds_count{{{_OF},stage="total"}}': "0+100x100",
        },
        {
            f'imageclass_stage_seconds_bucket{{{_OF},stage="total",le="0.5"}}': "0+999x100",
            f'imageclass_stage_seconds_count{{{_OF},stage="total"}}': "0+1000x100",
        },
    ),
    "ImageclassDown": ({f"up{{{_AT}}}": "1x90 0x10"}, {f"up{{{_AT}}}": "1x97 0 1 1"}),
    "ImageclassNotReady": (
        {f"imageclass_workers_ready{{{_AT}}}": "2x90 0x10"},
        {f"imageclass_workers_ready{{{_AT}}}": "2x90 1x10"},
    ),
    "ImageclassWorkersMissing": (
        {f"imageclass_workers_ready{{{_AT}}}": "2x80 1x20"},
        {f"imageclass_workers_ready{{{_AT}}}": "2x95 1x5"},
    ),
    "ImageclassWorkersReplaced": (
        {f"imageclass_worker_starts_total{{{_AT}}}": "2x80 3+1x20", f"imageclass_workers_ready{{{_AT}}}": "2x100"},
        {f"imageclass_worker_starts_total{{{_AT}}}": "4x80 4 4 2x20", f"imageclass_workers_ready{{{_AT}}}": "2x100"},
    ),
    "ImageclassOverloaded": (
        {
            f'imageclass_dropped_total{{{_AT},reason="refused"}}': "0+10x100",
            f'imageclass_version_pictures_total{{{_OF},version="1"}}': "0+90x100",
        },
        {
            f'imageclass_dropped_total{{{_AT},reason="refused"}}': "0+1x100",
            f'imageclass_dropped_total{{{_AT},reason="cancelled"}}': "0+50x100",
            f'imageclass_version_pictures_total{{{_OF},version="1"}}': "0+90x100",
        },
    ),
    "ImageclassVersionRefused": (
        {f'imageclass_model_loads_total{{{_OF},version="2",outcome="bundle_tampered"}}': "_x80 1x20"},
        {
            f'imageclass_model_loads_total{{{_OF},version="1",outcome="live"}}': "_x80 1x20",
            f'imageclass_model_loads_total{{{_OF},version="2",outcome="bundle_tampered"}}': "1x100",
        },
    ),
    "ImageclassVersionsDiffer": (
        {
            f'imageclass_model_info{{{_OF},version="1"}}': "1x100",
            f'imageclass_model_info{{job="{JOB}",instance="b:8000",model="digits",version="2"}}': "_x60 1x40",
        },
        {
            f'imageclass_model_info{{{_OF},version="1"}}': "1x90 0x10",
            f'imageclass_model_info{{{_OF},version="2"}}': "_x90 1x10",
        },
    ),
    "ImageclassConfidenceFell": (_FELL, _STEADY),
    "ImageclassPlacesLeaked": (
        {f"imageclass_admission_corrections_total{{{_AT}}}": "0x90 1x10"},
        {f"imageclass_admission_corrections_total{{{_AT}}}": "1x100"},
    ),
}
"""For each alert, series by the minute for which it fires in the end, and others for which it does not."""


def _expectation(expr: str, value: int, minutes: int) -> dict[str, Any]:
    return {
        "expr": expr,
        "eval_time": f"{minutes}m",
        "exp_samples": [{"labels": "{}", "value": value}] if value else [],
    }


def _run_promtool(
    promtool: str, file: Path, rules: Path, series: dict[str, str], expected: list[dict[str, Any]]
) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": expected,
    }
    content = {"rule_files": [str(rules)], "evaluation_interval": "2m", "tests": [test]}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", generated(), ids=lambda file: file.name)
def test_the_files_are_what_the_registry_makes_of_them(file: Path) -> None:
    assert file.read_text(encoding="utf-8") == generated()[file], "write them anew: make dashboards"


def test_there_is_no_dashboard_that_is_not_generated() -> None:
    assert set((FOLDER / "grafana" / "dashboards").iterdir()) == {
        file for file in generated() if file.suffix == ".json"
    }


@pytest.mark.parametrize("name", [*FAMILIES, BUILD_INFO])
def test_every_metric_is_on_a_dashboard(name: str) -> None:
    queries = [query for board in DASHBOARDS for panel in board.panels for query in panel.queries.values()]
    assert any(name in query for query in queries)


def test_a_metric_or_a_label_that_is_renamed_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = Metric("imageclass_requests")
    with pytest.raises(UnknownSeries, match="no label code"):
        requests.total(code='="x"')
    with pytest.raises(UnknownSeries, match="a counter, not a gauge"):
        requests.value()
    with pytest.raises(UnknownSeries, match=r"no bound 0\.3"):
        Metric("imageclass_stage_seconds").up_to(0.3)
    monkeypatch.setattr("deploy.monitoring.series.FAMILIES", {})
    with pytest.raises(UnknownSeries, match="no metric imageclass_requests"):
        Metric("imageclass_requests")


@pytest.mark.parametrize("name", grafana_dashboards())
def test_grafana_reads_a_dashboard_without_losing_anything(name: str) -> None:
    """Its own types drop what they do not know, and reject a value that is none of an enumeration."""
    register_default_plugins()
    ours = grafana_dashboards()[name]
    theirs = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(ours)))
    assert _lost(ours, theirs) == []


def _lost(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return the paths of what differs after Grafana's types have read it; defaults may be added."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            found
            for key, value in ours.items()
            for found in (_lost(value, theirs[key], f"{path}/{key}") if key in theirs else [f"{path}/{key} is unknown"])
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            found
            for index, (one, other) in enumerate(zip(ours, theirs, strict=True))
            for found in _lost(one, other, f"{path}/{index}")
        ]
    return [] if ours == theirs else [f"{path}: {ours!r} became {theirs!r}"]


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.name)
def test_panels_lie_in_the_grid_and_none_covers_another(board: Any) -> None:
    panels = grafana_dashboards()[f"{board.name}.json"]["panels"]
    cells = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_prometheus_takes_the_configuration_and_the_rules(program: FindProgram) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "config", str(FOLDER / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "is silent"])
def test_an_alert_does_as_its_case_says(program: FindProgram, tmp_path: Path, fires: bool) -> None:
    """All cases are evaluated together, each as a job of its own but the alert that looks for the one job."""
    assert CASES.keys() == {alert.name for alert in alerts()}
    series: dict[str, str] = {}
    expected = []
    for alert, both in CASES.items():
        job = JOB if alert == "ImageclassDown" else alert
        series |= {name.replace(JOB + '"', job + '"'): values for name, values in both[0 if fires else 1].items()}
        firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"'
        firing += "" if job == JOB else f',job="{job}"'
        minutes = 300 if alert == "ImageclassConfidenceFell" else 100
        expected.append(_expectation(firing + "}) >= bool 1", int(fires), minutes))
    _run_promtool(program("promtool"), tmp_path / "cases.yml", FOLDER / "rules.yml", series, expected)


def test_each_window_of_a_burn_rate_fires_from_its_own_threshold_on(program: FindProgram, tmp_path: Path) -> None:
    rules = yaml.safe_load((FOLDER / "rules.yml").read_text())
    only = tmp_path / "alerts-only.yml"  # so that the recorded series can be given
    only.write_text(yaml.safe_dump({"groups": [group for group in rules["groups"] if "alerts" in group["name"]]}))
    series: dict[str, str] = {}
    expected = []
    for name, ratio, budget in (
        ("ImageclassErrorBudgetBurns", failed_ratio, 0.001),
        ("ImageclassLatencyBudgetBurns", slow_ratio, 0.01),
    ):
        for factor, firing in ((15, 4), (7, 3), (4, 2), (2, 1), (0.9, 0)):
            series |= {f'{ratio(window)}{{job="at {factor}"}}': f"{factor * budget:.6f}x10" for window in WINDOWS}
            expr = f'count(ALERTS{{alertname="{name}",alertstate="firing",job="at {factor}"}})'
            expected.append(_expectation(expr, firing, 10))
    _run_promtool(program("promtool"), tmp_path / "windows.yml", only, series, expected)


def test_compose_gives_grafana_and_prometheus_what_their_configurations_name(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    prometheus, grafana = services["prometheus"], services["grafana"]
    assert prometheus["profiles"] == grafana["profiles"] == ["monitoring"]
    mounts = {
        target: repository / source
        for source, target, *_ in (volume.split(":") for volume in prometheus["volumes"] + grafana["volumes"])
        if source.startswith(".")
    }
    assert all(source.exists() for source in mounts.values())
    provisioning = mounts["/etc/grafana/provisioning"]
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "imageclass.yml").read_text())["providers"]
    assert mounts[provider["options"]["path"]].samefile(FOLDER / "grafana" / "dashboards")
    [scrape] = yaml.safe_load(mounts["/etc/prometheus/prometheus.yml"].read_text())["scrape_configs"]
    assert scrape["job_name"] == JOB
    assert [config["targets"] for config in scrape["static_configs"]] == [["service:8000"]]


def test_a_dashboard_that_grafana_does_not_understand_is_noticed() -> None:
    register_default_plugins()
    ours = grafana_dashboards()["overview.json"]
    ours["panels"][-1]["options"]["legendd"] = {}
    ours["timezon"] = "utc"
    theirs = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(ours)))
    last = len(ours["panels"]) - 1
    assert sorted(_lost(ours, theirs)) == [f"/panels/{last}/options/legendd is unknown", "/timezon is unknown"]
