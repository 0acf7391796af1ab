"""The metrics page, read as Prometheus reads it."""

import re
from collections.abc import Mapping

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample
from pydantic import SecretStr

from app.api.routes.metrics import BUILD_INFO, metrics_routes
from app.metrics import FAMILIES, ROW_BYTES, Metrics
from tests.api.conftest import OpenClient, client_of

BASE_UNITS = ("seconds", "bytes")


async def page(*metrics: Metrics) -> list[str]:
    """What each of these workers answers."""
    answers = []
    for worker in metrics:
        app = FastAPI()
        app.include_router(metrics_routes(worker, version="1.2.3"))
        async with client_of(app) as client:
            response = await client.get("/metrics")
            assert response.status_code == 200
            answers.append(response.text)
    return answers


def samples(text: str) -> dict[str, list[Sample]]:
    return {family.name: family.samples for family in parse_text(text)}


def value(text: str, name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return float(found)


async def test_one_scrape_has_all_workers_whichever_answers() -> None:
    rows = [bytearray(ROW_BYTES) for _ in range(2)]
    one, other = Metrics(rows, 0), Metrics(rows, 1)
    one.request("/predict", "mnist", "1", "200").add(3)
    other.request("/predict", "mnist", "1", "200").add(4)
    other.error("/predict", "overloaded").add()
    one.pending_bytes.set(1000)
    other.pending_bytes.set(24)
    text, same = await page(one, other)
    assert text == same
    labels = {"route": "/predict", "model": "mnist", "version": "1", "status": "200"}
    assert value(text, "imageclass_requests_total", **labels) == 7
    assert value(text, "imageclass_errors_total", route="/predict", code="overloaded") == 1
    assert value(text, "imageclass_pending_bytes") == 1024


async def test_totals_neither_fall_nor_double_when_a_worker_is_replaced() -> None:
    rows = [bytearray(ROW_BYTES) for _ in range(2)]
    staying, first = Metrics(rows, 0), Metrics(rows, 1)
    for worker in (staying, first):
        worker.begin()
        worker.dropped("expired").add(10)
        worker.stage("mnist", "total").observe(0.003)
    first.pending_pictures.set(5)
    second = Metrics(rows, 1)  # the first was killed amid its work
    second.begin()
    second.dropped("expired").add()
    second.stage("mnist", "total").observe(0.003)
    (text,) = await page(staying)
    assert value(text, "imageclass_dropped_total", reason="expired") == 21
    assert value(text, "imageclass_stage_seconds_count", model="mnist", stage="total") == 3
    assert value(text, "imageclass_pending_pictures") == 0, "what the first held is gone with it"
    assert value(text, "imageclass_worker_starts_total") == 3


async def test_a_histogram_is_cumulative_and_ends_with_all_that_was_counted() -> None:
    metrics = Metrics()
    for size in (1, 2, 3, 64, 5000):
        metrics.batch_size("mnist").observe(size)
    (text,) = await page(metrics)
    buckets = {
        sample.labels["le"]: sample.value
        for sample in samples(text)["imageclass_batch_size"]
        if sample.name.endswith("_bucket")
    }
    assert (buckets["1.0"], buckets["2.0"], buckets["4.0"], buckets["64.0"]) == (1, 2, 3, 4)
    assert (buckets["1024.0"], buckets["+Inf"]) == (4, 5)
    assert list(buckets.values()) == sorted(buckets.values())
    assert value(text, "imageclass_batch_size_count", model="mnist") == 5
    assert value(text, "imageclass_batch_size_sum", model="mnist") == 5070


async def test_a_label_cannot_break_out_of_its_line() -> None:
    metrics = Metrics()
    hostile = 'a"} 1\nforged_total{x="\\'
    metrics.model_info(hostile, "1", "openvino", "f32").set(1)
    (text,) = await page(metrics)
    assert not [line for line in text.splitlines() if line.startswith("forged")]
    assert [sample.labels["model"] for sample in samples(text)["imageclass_model_info"]] == [hostile]


async def test_the_page_is_what_each_format_asks_for_and_says_the_same(client: httpx.AsyncClient) -> None:
    await client.get("/models")
    text = await client.get("/metrics")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")
    parsed = parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]
    families = {family.name: family.type for family in parsed}
    assert families == {family.name.removesuffix("_total"): family.type for family in parse_text(text.text)}
    assert set(families) == {*FAMILIES, BUILD_INFO}


async def test_a_request_is_on_the_page_after_its_answer(client: httpx.AsyncClient) -> None:
    await client.get("/models/cats", headers={"x-request-id": "a"})
    text = (await client.get("/metrics")).text
    labels = {"route": "/models/{name}", "model": "", "version": "", "status": "404"}
    assert value(text, "imageclass_requests_total", **labels) == 1
    assert value(text, "imageclass_errors_total", route="/models/{name}", code="model_not_found") == 1


async def test_who_may_read_the_metrics_is_a_setting(open_client: OpenClient) -> None:
    async def status(headers: Mapping[str, str], **settings: object) -> int:
        return (await (await open_client(**settings)).get("/metrics", headers=headers)).status_code

    key = {"x-api-key": "first-key"}
    keys = SecretStr("first-key")
    assert await status({}, api_keys=keys) == 200
    assert await status({}, api_keys=keys, metrics_access="key") == 401
    assert await status(key, api_keys=keys, metrics_access="key") == 200
    assert await status(key, api_keys=keys, metrics_access="off") == 404
    assert await status({}, metrics_access="off") == 404


@pytest.mark.parametrize("name", FAMILIES)
def test_names_and_helps_are_as_prometheus_wants_them(name: str) -> None:
    """What `promtool check metrics` would say."""
    family = FAMILIES[name]
    assert re.fullmatch(r"imageclass_[a-z]+(_[a-z]+)*", name)
    assert family.help.endswith(".")
    assert not re.search(r"_(total|count|sum|bucket|created)$", name), "prometheus-client adds these"
    assert not re.search(r"milli|micro|_ms|_mb|_kb|minutes|percent", name), "base units only"
    for unit in BASE_UNITS:
        assert unit not in name or name.endswith(f"_{unit}")
    assert all(re.fullmatch(r"[a-z]+", label) and label not in ("le", "quantile") for label in family.labels)
    assert family.kind != "gauge" or not name.endswith("_total")
    assert list(family.bounds) == sorted(set(family.bounds))
