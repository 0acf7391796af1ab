"""A collector that hangs: whoever emits spans waits for nothing, and a worker that ends hardly."""

import logging
import socket
import time
from collections.abc import Iterator
from time import perf_counter

import pytest

from app.tracing.otlp import Exporter
from app.tracing.trace import Sampling


@pytest.fixture
def hanging_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes connections, and never answers; the exporter would wait for it for a minute."""
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        yield
    logger.handlers, logger.propagate = before


async def test_a_collector_that_hangs_delays_neither_requests_nor_the_end(
    hanging_collector: None, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    async with Exporter(Sampling(follows_parent=True, share=1.0), "1") as exporter:
        for _ in range(5000):  # more than the queue takes
            trace = exporter.tracer.trace((), perf_counter())
            assert trace is not None
            trace.end("POST /predict", {}, has_failed=False)
    assert time.monotonic() - began < 30
    assert not caplog.records
