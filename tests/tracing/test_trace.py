"""A trace: which requests have one, whose trace it continues, and which spans come of it."""

from time import perf_counter

import pytest

from app.tracing.trace import Place, Sampling, Span, Trace, Tracer, caller_of, trace_batch

TRACE, CALLER = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
SAMPLED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = SAMPLED[:-1] + b"0"


class Traced:
    """A tracer and the spans that it has emitted."""

    def __init__(self, *, follows_parent: bool = True, share: float = 1.0) -> None:
        self.spans: list[Span] = []
        self.tracer = Tracer(Sampling(follows_parent, share), self.spans.append)

    def trace(self, *headers: tuple[bytes, bytes]) -> Trace | None:
        return self.tracer.trace(headers, perf_counter())

    def one(self, *headers: tuple[bytes, bytes]) -> Trace:
        trace = self.trace(*headers)
        assert trace is not None
        return trace


def test_a_trace_continues_the_callers() -> None:
    traced = Traced()
    trace = traced.one((b"host", b"a"), (b"traceparent", SAMPLED), (b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
    trace.end("POST /predict", {"a": 1}, has_failed=False)
    (span,) = traced.spans
    assert span.place.trace_id == TRACE
    assert span.parent == Place(TRACE, CALLER)
    assert (span.name, span.attributes, span.answers, span.has_failed) == ("POST /predict", {"a": 1}, True, False)
    assert span.state == "a=1,b=2"
    assert span.began_ns <= span.ended_ns


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"junk",
        SAMPLED[:-1],
        SAMPLED + b"-more",
        b"ff" + SAMPLED[2:],
        SAMPLED.upper(),
        SAMPLED.replace(b"4bf92f3577b34da6a3ce929d0e0e4736", b"0" * 32),
        SAMPLED.replace(b"00f067aa0ba902b7", b"0" * 16),
        SAMPLED.replace(b"-", b"_"),
    ],
)
def test_a_header_that_is_no_traceparent_is_ignored(header: bytes) -> None:
    assert caller_of(header) is None
    traced = Traced()
    traced.one((b"traceparent", header)).end("POST /predict", {}, has_failed=False)
    assert traced.spans[0].parent is None
    assert traced.spans[0].place.trace_id != TRACE


@pytest.mark.parametrize("header", [b"01" + SAMPLED[2:] + b"-what a later version adds", b"cc" + SAMPLED[2:]])
def test_a_traceparent_of_a_later_version_is_understood(header: bytes) -> None:
    assert caller_of(header) == (b"%032x" % TRACE, b"%016x" % CALLER, True)


@pytest.mark.parametrize(
    ("follows_parent", "share", "header", "is_traced"),
    [
        (True, 0.0, SAMPLED, True),
        (True, 1.0, UNSAMPLED, False),
        (True, 1.0, None, True),
        (True, 0.0, None, False),
        (False, 0.0, SAMPLED, False),
        (False, 1.0, UNSAMPLED, True),
    ],
)
def test_the_caller_decides_unless_it_is_not_followed(
    follows_parent: bool, share: float, header: bytes | None, is_traced: bool
) -> None:
    traced = Traced(follows_parent=follows_parent, share=share)
    assert (traced.trace(*([] if header is None else [(b"traceparent", header)])) is not None) == is_traced


def test_a_share_of_the_traces_is_sampled_the_same_ones_everywhere() -> None:
    one, other = Traced(follows_parent=False, share=0.25), Traced(follows_parent=False, share=0.25)
    headers = [b"00-%032x-00f067aa0ba902b7-00" % (number << 54 | 1) for number in range(1024)]
    sampled = [traced.trace((b"traceparent", header)) is not None for traced in (one, other) for header in headers]
    assert sampled[:1024] == sampled[1024:]
    assert sum(sampled) == 2 * 256


def test_stages_are_spans_below_the_requests() -> None:
    traced = Traced()
    trace = traced.one()
    trace.stage("read", 0.001)
    trace.stage("queue", 0.002)
    assert traced.spans == []
    trace.end("POST /predict", {}, has_failed=True)
    read, queue, request = traced.spans
    assert [read.name, queue.name, request.name] == ["read", "queue", "POST /predict"]
    assert read.parent == queue.parent == request.place
    assert request.parent is None
    assert request.has_failed
    assert len({span.place.span_id for span in traced.spans}) == 3
    assert {span.place.trace_id for span in traced.spans} == {request.place.trace_id}
    assert read.ended_ns - read.began_ns == 1_000_000


def test_a_stage_of_many_pictures_is_one_span() -> None:
    traced = Traced()
    trace = traced.one()
    trace.stage("decode", 0.002)
    trace.stage("decode", 0.001)
    trace.end("POST /predict/batch", {}, has_failed=False)
    decode = traced.spans[0]
    assert decode.attributes == {"imageclass.pictures": 2, "imageclass.seconds": pytest.approx(0.003)}
    assert decode.ended_ns - decode.began_ns >= 2_000_000


def test_a_batch_is_a_trace_of_its_own_that_links_its_requests() -> None:
    traced = Traced()
    one, two = traced.one(), traced.one()
    trace_batch([one, two, two], 0.005, size=7, model="mnist", version="3")
    one.end("one", {}, has_failed=False)
    two.end("two", {}, has_failed=False)
    batch, of_one, _, of_two, _ = traced.spans
    about = {"imageclass.batch.size": 7, "imageclass.model": "mnist", "imageclass.version": "3"}
    assert (batch.name, batch.parent, batch.attributes) == ("batch", None, about)
    assert list(batch.links) == [one.place, two.place]
    assert batch.place.trace_id not in (one.place.trace_id, two.place.trace_id)
    assert (of_one.name, of_one.parent, of_one.attributes) == ("inference", one.place, about)
    assert of_two.attributes == {**about, "imageclass.pictures": 2}
    assert list(of_one.links) == list(of_two.links) == [batch.place]
    assert batch.ended_ns - batch.began_ns == 5_000_000
