"""Send spans to an OpenTelemetry collector, by OTLP over HTTP.

This module alone imports OpenTelemetry's SDK, which is an extra, and is imported only if traces are asked for. A thread
sends the spans; its queue is bounded, and spans that do not fit are dropped.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Self
from uuid import uuid4

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from app.tracing.trace import Place, Sampling, Span, Tracer

_LAST_SPANS_S = 1.0
"""How long the last spans may take to be sent when a worker ends; the rest is lost."""

_log = structlog.stdlib.get_logger(__name__)


class Exporter:
    """An async context manager around a tracer whose spans are sent; at its end it sends the last ones."""

    def __init__(self, sampling: Sampling, version: str) -> None:
        self.tracer = Tracer(sampling, self._emit)
        self._resource = _resource(version)
        self._scope = InstrumentationScope("imageclass", version)
        self._processor = BatchSpanProcessor(_Telling(OTLPSpanExporter()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def end() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # nobody has waited for so long
                loop.call_soon_threadsafe(ended.set)

        # No thread of a pool: those are waited for when a loop or a process ends.
        Thread(target=end, name="last-spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SPANS_S):
                await ended.wait()

    def _emit(self, span: Span) -> None:
        # Made by hand, not by the SDK's tracer, which takes ten times as long and decides for each span separately.
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=_context(span.place, state=span.state),
                parent=None if span.parent is None else _context(span.parent, is_remote=span.answers),
                resource=self._resource,
                attributes=span.attributes,
                links=[Link(_context(place)) for place in span.links],
                kind=SpanKind.SERVER if span.answers else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR if span.has_failed else StatusCode.UNSET),
                start_time=span.began_ns,
                end_time=span.ended_ns,
                instrumentation_scope=self._scope,
            )
        )


def _context(place: Place, *, is_remote: bool = False, state: str = "") -> SpanContext:
    return SpanContext(
        *place, is_remote, TraceFlags(TraceFlags.SAMPLED), TraceState.from_header([state]) if state else None
    )


def _resource(version: str) -> Resource:
    """Return the attributes of this process; those of OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take
    precedence."""
    given = OTELResourceDetector().detect().attributes
    own = {"service.name": "imageclass", "service.version": version, "service.instance.id": str(uuid4())}
    return Resource.create({name: value for name, value in own.items() if name not in given})


class _FirstLine(logging.Handler):
    """Keeps the first line of OpenTelemetry's own log until it is taken; none of that log reaches the service's log.

    An unreachable collector would fill that with several lines every few seconds.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._line = ""

    def emit(self, record: logging.LogRecord) -> None:
        self._line = self._line or record.getMessage()

    def take(self) -> str:
        line, self._line = self._line, ""
        return line


class _Telling(SpanExporter):
    """Logs when spans begin to be lost, and when they are sent again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False
        self._reasons = _FirstLine()
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [self._reasons], False
        logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)  # it warns of every span that its queue drops

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        has_failed, reason = result is not SpanExportResult.SUCCESS, self._reasons.take()
        if has_failed and not self._is_failing:
            _log.warning("traces are lost", reason=reason)
        if self._is_failing and not has_failed:
            _log.info("traces are sent again")
        self._is_failing = has_failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
