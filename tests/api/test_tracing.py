"""Every road of a request makes the same spans, over real sockets; and a request that is not sampled makes none."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest

from app.api.http1.connection import Connection as ServerConnection
from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.api.protocols.open_inference.rpc import SERVICE
from app.settings import Settings
from app.tracing.otlp import Exporter
from app.tracing.trace import Place, Sampling, Span, Tracer
from tests.api.sockets import LongWay, Server
from tests.conftest import Load
from tests.end_to_end.callers import free_port

STAGES = ["read", "queue", "decode", "inference"]
TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
CALLER = Place(TRACE, 0x00F067AA0BA902B7)
SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = SAMPLED[:-1] + "0"
PNG = {"content-type": "image/png"}


class Kept:
    """An exporter that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.tracer = Tracer(Sampling(follows_parent=True, share=0.0), self.spans.append)

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


class Traced:
    """A service, and the spans of what it is asked. It traces what its callers trace, and nothing else."""

    def __init__(self, server: Server, kept: Kept, grpc_port: int) -> None:
        self._server = server
        self._kept = kept
        self.grpc_port = grpc_port
        self.client = httpx.Client(base_url="http://{}:{}".format(*server.address), timeout=60)

    def post(self, path: str, traceparent: str | None = SAMPLED, **body: Any) -> httpx.Response:
        headers = {**body.pop("headers", {}), **({} if traceparent is None else {"traceparent": traceparent})}
        return self.client.post(path, headers=headers, **body)

    def take(self) -> list[Span]:
        """Return the spans since the last call."""
        self._server.turn()  # an answer may be sent just before its trace ends
        spans, self._kept.spans[:] = list(self._kept.spans), []
        return spans


@pytest.fixture(scope="module", params=[ServerConnection, LongWay], ids=["lean", "long"])
def traced(request: pytest.FixtureRequest, trained_store: Path, load: Load) -> Iterator[Traced]:
    port = free_port()
    settings = Settings(model_store=trained_store, engine="openvino", grpc_port=port)
    kept = Kept()
    with ExitStack() as stack:
        server = Server(settings, load(settings), request.param, cast("Exporter", kept))
        traced = Traced(stack.enter_context(server), kept, port)
        stack.enter_context(traced.client)
        yield traced


@pytest.fixture(scope="module")
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def assert_stages(spans: list[Span], name: str, *, pictures: int = 1, more: tuple[str, ...] = ()) -> Span:
    """Check the spans of one answered request and of its batches, and return its own."""
    *before, request = spans
    assert request.name == name
    assert request.parent == CALLER
    assert request.place.trace_id == TRACE
    assert not request.has_failed
    assert (request.attributes["imageclass.model"], request.attributes["imageclass.version"]) == ("digits", "1")
    batches = [span for span in before if span.name == "batch"]
    stages = [span for span in before if span.name != "batch"]
    assert {span.name for span in stages} == {*STAGES, *more}
    assert all(span.parent == request.place for span in stages)
    assert all(span.began_ns >= request.began_ns and span.ended_ns <= request.ended_ns for span in stages)
    inferences = [span for span in stages if span.name == "inference"]
    assert [span.links for span in inferences] == [[batch.place] for batch in batches]
    for batch in batches:
        assert batch.links == [request.place]
        assert batch.place.trace_id != TRACE
    sizes = [batch.attributes["imageclass.batch.size"] for batch in batches]
    assert sum(cast("list[int]", sizes)) == pictures
    return request


def test_a_picture_as_the_whole_body(traced: Traced, seven: bytes) -> None:
    answer = traced.post("/predict", content=seven, headers={**PNG, "x-request-id": "order-42"})
    assert answer.status_code == 200
    request = assert_stages(traced.take(), "POST /predict")
    assert request.answers
    assert request.attributes == {
        "imageclass.request_id": "order-42",
        "imageclass.model": "digits",
        "imageclass.version": "1",
        "http.request.method": "POST",
        "http.route": "/predict",
        "url.path": "/predict",
        "http.response.status_code": 200,
    }


def test_a_picture_in_a_form(traced: Traced, seven: bytes) -> None:
    assert traced.post("/predict", files={"file": seven}).status_code == 200
    assert_stages(traced.take(), "POST /predict")


def test_many_pictures(traced: Traced, seven: bytes) -> None:
    assert traced.post("/predict/batch", files=[("files", seven)] * 3).status_code == 200
    spans = traced.take()
    assert_stages(spans, "POST /predict/batch", pictures=3)
    (decode,) = [span for span in spans if span.name == "decode"]
    assert decode.attributes["imageclass.pictures"] == 3


def test_the_protocols_over_http(traced: Traced, seven: bytes) -> None:
    text = base64.b64encode(seven).decode()
    assert traced.post("/v1/models/digits:predict", json={"instances": [{"b64": text}]}).status_code == 200
    assert_stages(traced.take(), "POST /v1/models/{model}:predict")
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    assert traced.post("/v2/models/digits/infer", json={"inputs": [tensor]}).status_code == 200
    assert_stages(traced.take(), "POST /v2/models/{model}/infer")


def test_the_protocol_over_grpc(traced: Traced, seven: bytes) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{traced.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(seven)
        message = pb.ModelInferRequest(model_name="digits", inputs=[tensor])
        call(message, timeout=30, metadata=[("traceparent", SAMPLED)])
        request = assert_stages(traced.take(), f"{SERVICE}/ModelInfer")
        assert request.attributes["rpc.method"] == f"{SERVICE}/ModelInfer"
        call(message, timeout=30, metadata=[("traceparent", UNSAMPLED)])
        assert traced.take() == []


def test_an_explanation(traced: Traced, seven: bytes) -> None:
    assert traced.post("/explain", content=seven, headers=PNG).status_code == 200
    assert_stages(traced.take(), "POST /explain", more=("explain",))


@pytest.mark.parametrize("traceparent", [None, UNSAMPLED])
def test_a_request_that_is_not_sampled_makes_no_spans(traced: Traced, seven: bytes, traceparent: str | None) -> None:
    assert traced.post("/predict", traceparent, content=seven, headers=PNG).status_code == 200
    assert traced.post("/predict/batch", traceparent, files=[("files", seven)] * 3).status_code == 200
    assert traced.take() == []


def test_probes_and_scrapes_make_no_spans(traced: Traced) -> None:
    for path in ("/health/live", "/health/ready", "/health", "/metrics"):
        assert traced.client.get(path, headers={"traceparent": SAMPLED}).status_code == 200
    assert traced.take() == []


def test_a_refused_request_says_so(traced: Traced) -> None:
    assert traced.post("/predict", content=b"junk", headers=PNG).status_code == 415
    *_, request = traced.take()
    assert request.attributes["http.response.status_code"] == 415
    assert request.attributes["error.type"] == "unsupported_format"
    assert not request.has_failed  # it is the client's mistake


def test_other_requests_have_a_span_without_stages(traced: Traced) -> None:
    assert traced.client.get("/models/digits", headers={"traceparent": SAMPLED}).status_code == 200
    (request,) = traced.take()
    assert (request.name, request.parent) == ("GET /models/{name}", CALLER)
