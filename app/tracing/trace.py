"""Record what a traced request goes through, as spans.

A sampled request has a `Trace`. Code that observes a stage of the request for the metrics records it in the trace as
well, when the stage ends. Spans are made when the request has been answered. A request that is not sampled has None,
and so has every request if tracing is off. All of it happens on the event loop.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter, time_ns
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_SAMPLED = 0x01
_NS = 1_000_000_000

Attributes = Mapping[str, str | int | float]


class Place(NamedTuple):
    """A span's own place: its trace and its id."""

    trace_id: int
    span_id: int


class Caller(NamedTuple):
    """The caller's span, as the header `traceparent` names it (W3C Trace Context). The ids are hexadecimal."""

    trace_id: bytes
    span_id: bytes
    is_sampled: bool


class Span(NamedTuple):
    """A finished span. Times are in nanoseconds since 1970."""

    name: str
    place: Place
    began_ns: int
    ended_ns: int
    attributes: Attributes
    parent: Place | None = None
    links: Sequence[Place] = ()
    answers: bool = False
    """Whether it is the span of a request to this service, whose parent, if any, is in another process."""
    has_failed: bool = False
    state: str = ""
    """What the caller's tracing system wants to be passed on."""


class Sampling(NamedTuple):
    """Which requests are traced: as the caller has decided, if `follows_parent`; else this share of the traces."""

    follows_parent: bool
    share: float


class Tracer:
    """Decides which requests are traced. `emit` takes finished spans; it must neither take long nor raise."""

    def __init__(self, sampling: Sampling, emit: Callable[[Span], None]) -> None:
        self._follows_parent = sampling.follows_parent
        self._below = round(sampling.share * (1 << 64))
        self._emit = emit

    def trace(self, headers: Iterable[tuple[bytes, bytes]], began: float) -> "Trace | None":
        """Return the trace of a request that began at this time of `perf_counter`; None if it is not sampled."""
        caller = None
        for name, value in headers:
            if name == b"traceparent":
                caller = caller_of(value)
                break
        if caller is None:
            trace_id = random.getrandbits(128)
            return Trace(trace_id, None, "", began, self._emit) if self._samples(trace_id) else None
        if not (caller.is_sampled if self._follows_parent else self._samples(int(caller.trace_id, 16))):
            return None
        parent = Place(int(caller.trace_id, 16), int(caller.span_id, 16))
        state = b",".join(value for name, value in headers if name == b"tracestate").decode("latin-1")
        return Trace(parent.trace_id, parent, state, began, self._emit)

    def _samples(self, trace_id: int) -> bool:
        """Decide as every OpenTelemetry SDK does, so that all sample the same traces."""
        return trace_id & 0xFFFF_FFFF_FFFF_FFFF < self._below


class Trace:
    """One sampled request and its stages."""

    def __init__(
        self, trace_id: int, parent: Place | None, state: str, began: float, emit: Callable[[Span], None]
    ) -> None:
        self.place = Place(trace_id, _new_span_id())
        self.emit = emit
        self._parent = parent
        self._state = state
        self._began_ns = time_ns() - round((perf_counter() - began) * _NS)
        self._stages: dict[str, _Stage] = {}
        self._spans: list[Span] = []

    def stage(self, name: str, seconds: float) -> None:
        """Record a stage that ends now and took so long.

        A stage of several pictures is one span, from the first picture's beginning to the last one's end.
        """
        now = time_ns()
        began = now - round(seconds * _NS)
        stage = self._stages.get(name)
        self._stages[name] = (
            _Stage(began, now, 1, seconds)
            if stage is None
            else _Stage(min(began, stage.began_ns), now, stage.pictures + 1, stage.seconds + seconds)
        )

    def add(self, name: str, began_ns: int, ended_ns: int, attributes: Attributes, link: Place) -> None:
        """Record a stage that is a span of its own, however often it is repeated."""
        self._spans.append(Span(name, self._new_place(), began_ns, ended_ns, attributes, self.place, [link]))

    def end(self, name: str, attributes: Attributes, *, has_failed: bool) -> None:
        """Emit all spans: the request has its answer."""
        emit = self.emit
        for stage_name, stage in self._stages.items():
            several = {"imageclass.pictures": stage.pictures, "imageclass.seconds": stage.seconds}
            about = several if stage.pictures > 1 else {}
            emit(Span(stage_name, self._new_place(), stage.began_ns, stage.ended_ns, about, self.place))
        for span in self._spans:
            emit(span)
        emit(
            Span(
                name,
                self.place,
                self._began_ns,
                time_ns(),
                attributes,
                self._parent,
                answers=True,
                has_failed=has_failed,
                state=self._state,
            )
        )

    def _new_place(self) -> Place:
        return Place(self.place.trace_id, _new_span_id())


class _Stage(NamedTuple):
    began_ns: int
    ended_ns: int
    pictures: int
    seconds: float


def trace_batch(traces: Sequence[Trace], seconds: float, *, size: int, model: str, version: str) -> None:
    """Emit the span of a batch that ends now and took so long, and record it as the inference of these requests.

    `traces` are those of the traced pictures in it, one for each; `size` counts all pictures. A batch belongs to
    several requests, so it has a trace of its own, linked with the spans of those requests in both directions.
    """
    ended = time_ns()
    began = ended - round(seconds * _NS)
    batch = Place(random.getrandbits(128), _new_span_id())
    about: Attributes = {"imageclass.batch.size": size, "imageclass.model": model, "imageclass.version": version}
    pictures = Counter(traces)
    for trace, count in pictures.items():
        trace.add("inference", began, ended, {**about, "imageclass.pictures": count} if count > 1 else about, batch)
    traces[0].emit(Span("batch", batch, began, ended, about, links=[trace.place for trace in pictures]))


def caller_of(traceparent: bytes) -> Caller | None:
    """Return the caller's span; None if the header is invalid."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Caller(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def _new_span_id() -> int:
    return random.getrandbits(64) or 1
