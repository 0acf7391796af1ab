"""A real service sends its traces to a collector in another process; one that is down harms nothing."""

import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.callers import free_port
from tests.end_to_end.collector import collecting
from tests.end_to_end.conftest import Service, StartService
from tests.end_to_end.pages import opened, settings_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e47"
PNG = {"content-type": "image/png"}


def ask(service: Service, picture: bytes, *, requests: int, flags: str = "01") -> None:
    """Send that many requests over a connection each, every one in a trace of its own."""

    def post(number: int) -> int:
        traceparent = f"00-{TRACE}{number:02x}-00f067aa0ba902b7-{flags}"
        headers = {**PNG, "traceparent": traceparent}
        return httpx.post(f"{service.url}/predict", content=picture, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, range(requests))) == {200}


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def test_workers_send_their_spans_the_last_ones_when_they_end(
    trained_store: Path, start_service: StartService, seven: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(free_port(), tmp_path) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=digits")
        service = start_service(trained_store, workers=2)
        ask(service, seven, requests=40)
        ask(service, seven, requests=40, flags="00")
        assert service.stop() == 0
        spans = collector.spans
    requests = [span for span in spans if span["name"] == "POST /predict"]
    assert sorted(span["trace"] for span in requests) == [f"{TRACE}{number:02x}" for number in range(40)]
    assert {span["parent"] for span in requests} == {"00f067aa0ba902b7"}
    assert {span["kind"] for span in requests} == {"SPAN_KIND_SERVER"}
    stages = Counter(span["name"] for span in spans if span["parent"] in {request["id"] for request in requests})
    assert stages == dict.fromkeys(("read", "decode", "queue", "inference"), 40)
    batches = [span for span in spans if span["name"] == "batch"]
    assert sorted(link for batch in batches for link in batch["links"]) == sorted(span["id"] for span in requests)
    assert all(batch["attributes"]["imageclass.batch.size"] == len(batch["links"]) for batch in batches)
    resources = [span["resource"] for span in requests]
    assert {resource["service.name"] for resource in resources} == {"digits"}
    assert {resource["deployment.environment.name"] for resource in resources} == {"test"}
    assert len({resource["service.instance.id"] for resource in resources}) == 2
    assert not [line for line in service.log if line["level"] not in ("info", "debug")]


def test_a_collector_that_is_down_is_told_of_once_and_so_is_its_return(
    trained_store: Path, start_service: StartService, seven: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1.5")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "32")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    service = start_service(trained_store)
    ask(service, seven, requests=50)
    lost = service.wait_for("traces are lost")
    assert "Connection refused" in lost["reason"]
    with collecting(port, tmp_path) as collector:
        ask(service, seven, requests=1)
        service.wait_for("traces are sent again")
        assert collector.spans
        assert service.stop() == 0
    about_traces = [line["event"] for line in service.log if "trace" in line["event"]]
    assert about_traces == ["traces are lost", "traces are sent again"]
    assert not [line for line in service.log if "opentelemetry" in str(line) and line is not lost]


def test_the_commands_of_the_page_trace_what_the_caller_traces(
    trained_store: Path, start_service: StartService, seven: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("docs/how-to/tracing.md") as page, collecting(free_port(), tmp_path) as collector:
        for command in page.commands("export "):
            for variable in shlex.split(command, comments=True)[1:]:
                name, value = variable.split("=", 1)
                monkeypatch.setenv(name, value.replace("http://collector:4318", collector.url))
        [serve] = page.commands()
        service = start_service(trained_store, **settings_of(serve))
        ask(service, seven, requests=1)
        assert service.stop() == 0
        spans = collector.spans
    stages = {"read", "decode", "queue", "inference"}
    assert {span["name"] for span in spans if span["trace"] == f"{TRACE}00"} == {"POST /predict", *stages}
    assert "batch" in {span["name"] for span in spans}
