"""GET /metrics: the metrics of all workers in Prometheus's formats. This module counts nothing itself."""

import platform
from collections.abc import Iterable, Sequence
from itertools import accumulate

from fastapi import APIRouter, Header
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.responses import Response

from app.api.openapi.schemas import error_responses
from app.metrics import FAMILIES, Family, Metrics

BUILD_INFO = "imageclass_build_info"


def metrics_routes(metrics: Metrics, *, version: str) -> APIRouter:
    router = APIRouter(tags=["metrics"])
    collector = _AllWorkers(metrics, version=version)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **error_responses(400, 401)},
    )
    async def read(accept: str = Header("", include_in_schema=False)) -> Response:
        """All workers together, as text or as OpenMetrics. Whichever worker answers, the page is the same."""
        encode, media_type = choose_encoder(accept)
        return Response(encode(collector), headers={"content-type": media_type})

    return router


class _AllWorkers(Collector):
    """Reads the metrics at each scrape, as a collector of prometheus-client."""

    def __init__(self, metrics: Metrics, *, version: str) -> None:
        self._metrics = metrics
        self._build = GaugeMetricFamily(
            BUILD_INFO, "1; the labels say which release and Python run.", labels=("version", "python")
        )
        self._build.add_metric((version, platform.python_version()), 1.0)

    def collect(self) -> Iterable[Metric]:
        for name, series in self._metrics.read().items():
            family = FAMILIES[name]
            yield _metric(name, family, series.items())
        yield self._build


def _metric(name: str, family: Family, series: Iterable[tuple[tuple[str, ...], list[float]]]) -> Metric:
    match family.kind:
        case "counter":
            counter = CounterMetricFamily(name, family.help, labels=family.labels)
            for labels, (value,) in series:
                counter.add_metric(labels, value)
            return counter
        case "gauge":
            gauge = GaugeMetricFamily(name, family.help, labels=family.labels)
            for labels, (value,) in series:
                gauge.add_metric(labels, value)
            return gauge
        case "summary":
            summary = SummaryMetricFamily(name, family.help, labels=family.labels)
            for labels, (total, count) in series:
                summary.add_metric(labels, round(count), total)
            return summary
        case "histogram":
            histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
            for labels, (total, *counts) in series:
                histogram.add_metric(labels, _cumulative(family.bounds, counts), total)
            return histogram


def _cumulative(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Return Prometheus's cumulative buckets: how many values were at most each bound."""
    return list(zip([*map(floatToGoString, bounds), "+Inf"], accumulate(counts), strict=True))
