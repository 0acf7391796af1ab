"""The protocol over gRPC, with gRPC's own client: the same answers, errors, keys and numbers as over HTTP."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.api.errors import STATUS
from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.api.protocols.open_inference.messages import infer_request, read
from app.api.protocols.open_inference.requests import Reader
from app.api.protocols.open_inference.rpc import CODES, SERVICE
from app.api.protocols.open_inference.rpc_server import RpcServer
from app.api.protocols.open_inference.tensors import bytes_to_binary, encoded_from_binary
from app.contract.bundle import Manifest, open_bundle
from app.contract.preprocessing import preprocess
from app.errors import MalformedRequest, UploadTooLarge
from app.main import create_app
from app.serving.admission import Admission, Lease, Owner
from app.serving.catalogue import Catalogue
from app.settings import Settings
from tests.api.conftest import client_of
from tests.api.open_inference.test_infer import by_predict
from tests.conftest import Load
from tests.holding import busy

KINDS: dict[str, tuple[Any, Any]] = {
    "ServerLive": (pb.ServerLiveRequest, pb.ServerLiveResponse),
    "ServerReady": (pb.ServerReadyRequest, pb.ServerReadyResponse),
    "ModelReady": (pb.ModelReadyRequest, pb.ModelReadyResponse),
    "ServerMetadata": (pb.ServerMetadataRequest, pb.ServerMetadataResponse),
    "ModelMetadata": (pb.ModelMetadataRequest, pb.ModelMetadataResponse),
    "ModelInfer": (pb.ModelInferRequest, pb.ModelInferResponse),
    "ModelConfig": (pb.ModelConfigRequest, pb.ModelConfigResponse),
    "ModelStatistics": (pb.ModelStatisticsRequest, pb.ModelStatisticsResponse),
    "RepositoryIndex": (pb.RepositoryIndexRequest, pb.RepositoryIndexResponse),
    "ModelStreamInfer": (pb.ModelInferRequest, pb.ModelInferResponse),
}


class Running:
    """A service with both of its ports: `http` asks one, and `call` the other."""

    def __init__(self, state: Any, catalogue: Catalogue, http: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
        self.rpc: RpcServer = state["rpc"]
        self.catalogue: Catalogue = catalogue
        self.http = http
        self.channel = channel

    def call(self, call: str, /, *, metadata: Any = None, timeout: float | None = 30, **fields: Any) -> Any:
        request, response = KINDS[call]
        ask = self.channel.unary_unary(
            f"/{SERVICE}/{call}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return ask(request(**fields), metadata=metadata, timeout=timeout)

    async def raw(self, name: str, data: bytes) -> Any:
        return await self.channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=30)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def serving(load: Load, store: Path, **settings: Any) -> AsyncIterator[Running]:
    port = free_port()
    asked = Settings(**{"model_store": store, "engine": "openvino", "grpc_port": port, **settings})
    app = create_app(asked, load(asked))
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(app.router.lifespan_context(app))
        http = await stack.enter_async_context(client_of(app))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield Running(state, app.state.inference.catalogue, http, channel)


@pytest.fixture
async def running(trained_store: Path, load: Load) -> AsyncIterator[Running]:
    async with serving(load, trained_store) as running:
        yield running


@pytest.fixture(scope="module")
def manifest(trained_store: Path) -> Manifest:
    return open_bundle(trained_store / "digits" / "1").manifest


@pytest.fixture
def pictures(mnist_pictures: list[tuple[Path, str]]) -> list[bytes]:
    return [file.read_bytes() for file, _ in mnist_pictures]


def encoded(pictures: list[bytes], **more: Any) -> dict[str, Any]:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(pictures)]}
    return {"model_name": "digits", "inputs": [tensor], "raw_input_contents": [bytes_to_binary(pictures)], **more}


def turnstile(admission: Admission) -> tuple[asyncio.Event, asyncio.Event]:
    """Return what is set when the next pictures have entered, and when they have left."""
    entered, left = asyncio.Event(), asyncio.Event()
    enter, leave = admission.enter, admission.leave

    def enter_and_say(owner: Owner, pictures: int = 1, *, size: int = 0, explains: bool = False) -> Lease:
        lease = enter(owner, pictures, size=size, explains=explains)
        entered.set()
        return lease

    def leave_and_say(lease: Lease) -> None:
        leave(lease)
        if lease.pictures:
            left.set()

    admission.enter, admission.leave = enter_and_say, leave_and_say  # type: ignore[method-assign]
    return entered, left


async def assert_refused(call: Any, code: grpc.StatusCode, name: str, says: str = "") -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    assert says in caught.value.details()
    trailing = dict(caught.value.trailing_metadata())
    assert trailing["x-error-code"] == name
    assert trailing["x-request-id"]
    return caught.value


async def test_pictures_and_pixels_in_either_form_get_what_predict_says(
    running: Running, pictures: list[bytes], manifest: Manifest
) -> None:
    expected = await by_predict(running.http, pictures[:5])
    pixels = np.stack([preprocess(picture, manifest.preprocessing) for picture in pictures[:5]])
    for datatype, shape, contents, raw in (
        ("BYTES", [5], {"bytes_contents": pictures[:5]}, bytes_to_binary(pictures[:5])),
        ("UINT8", [5, 28, 28, 1], {"uint_contents": pixels.reshape(-1).tolist()}, pixels.tobytes()),
    ):
        tensor = {"name": "image", "datatype": datatype, "shape": shape}
        answer = await running.call("ModelInfer", model_name="digits", inputs=[{**tensor, "contents": contents}])
        assert not answer.raw_output_contents
        assert list(answer.outputs[0].shape) == [5, 10]
        np.testing.assert_allclose(
            np.array(answer.outputs[0].contents.fp32_contents).reshape(5, 10), expected, atol=1e-6
        )
        answer = await running.call(
            "ModelInfer", model_name="digits", id="order-42", inputs=[tensor], raw_input_contents=[raw]
        )
        found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(5, 10)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert (answer.model_name, answer.model_version, answer.id) == ("digits", "1", "order-42")


async def test_classification_and_more_pictures_than_run_at_once(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    async with serving(load, trained_store, max_batch_size=16, max_batch_pictures=80) as running:
        outputs = [{"name": "probabilities", "parameters": {"classification": {"int64_param": 1}}}]
        answer = await running.call("ModelInfer", **encoded(pictures, outputs=outputs))
        best = [entry.split(b":")[2].decode() for entry in encoded_from_binary(answer.raw_output_contents[0], 80, "")]
        assert best == [str(np.argmax(row)) for row in await by_predict(running.http, pictures)]


async def test_what_http_says_of_the_service_and_its_models_is_said_here(running: Running) -> None:
    assert (await running.call("ServerLive")).live
    assert (await running.call("ServerReady")).ready
    assert (await running.call("ModelReady", name="digits", version="1")).ready
    server = await running.call("ServerMetadata")
    assert (await running.http.get("/v2")).json() == {
        "name": server.name,
        "version": server.version,
        "extensions": list(server.extensions),
    }
    model = await running.call("ModelMetadata", name="digits")
    assert [(each.name, each.datatype, list(each.shape)) for each in (*model.inputs, *model.outputs)] == [
        ("image", "UINT8", [-1, 28, 28, 1]),
        ("probabilities", "FP32", [-1, 10]),
    ]
    config = (await running.call("ModelConfig", name="digits")).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (64, [28, 28, 1])
    index = (await running.call("RepositoryIndex")).models
    assert [(each.name, each.version, each.state) for each in index] == [("digits", "1", "READY")]


async def test_calls_are_counted_as_requests_are(running: Running, pictures: list[bytes]) -> None:
    await running.call("ModelInfer", **encoded(pictures[:3]))
    (found,) = (await running.call("ModelStatistics")).model_stats
    assert (found.name, found.version, found.inference_count) == ("digits", "1", 3)
    assert found.inference_stats.success.count == 1
    page = (await running.http.get("/metrics")).text
    assert f'model="digits",route="/{SERVICE}/ModelInfer",status="200",version="1"' in page


async def test_errors_have_the_code_of_their_status_and_the_same_sentence(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    async with serving(load, trained_store, max_upload_bytes=4000) as running:
        infer = partial(running.call, "ModelInfer")
        good = encoded(pictures[:2])
        await assert_refused(infer(**{**good, "model_name": "cats"}), grpc.StatusCode.NOT_FOUND, "model_not_found")
        await assert_refused(
            infer(**{**good, "model_version": "2"}), grpc.StatusCode.NOT_FOUND, "model_not_found", "version 1 is"
        )
        await assert_refused(infer(**encoded([pictures[0], b"?"])), invalid, "unsupported_format", "Picture 1, counted")
        await assert_refused(infer(**encoded([pictures[0][:-40]])), invalid, "undecodable_image")
        await assert_refused(infer(**encoded([bytes(4001)])), grpc.StatusCode.RESOURCE_EXHAUSTED, "upload_too_large")
        await assert_refused(infer(**{**good, "inputs": []}), invalid, "malformed_request", "has: none")
        await assert_refused(
            infer(**{**good, "outputs": [{"name": "logits"}]}), invalid, "malformed_request", "'logits'"
        )
        await assert_refused(infer(**{**good, "raw_input_contents": []}), invalid, "malformed_request", "2 elements")
        await assert_refused(
            infer(**{**good, "raw_input_contents": [b"", b""]}), invalid, "malformed_request", "one element"
        )
        await assert_refused(
            infer(**{**good, "parameters": {"timeout": {"int64_param": 1}}}),
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "deadline_exceeded",
        )
        await assert_refused(running.raw("ModelInfer", b"\xff"), invalid, "malformed_request", "not a ModelInfer")


async def test_a_defect_is_told_without_what_is_inside(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.protocols.open_inference.rpc.server_metadata", lambda _: 1 / 0)
    with pytest.raises(grpc.aio.AioRpcError, match="Something failed inside the service") as caught:
        await running.call("ServerMetadata")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "division" not in caught.value.details()


async def test_what_is_not_implemented_says_so(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.call("ModelStreamInfer")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_every_status_of_the_table_has_a_code() -> None:
    assert set(STATUS.values()) <= set(CODES)


async def test_a_key_goes_into_the_metadata_and_health_needs_none(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    async with serving(load, trained_store, api_keys=SecretStr("the-key")) as running:
        denied = grpc.StatusCode.UNAUTHENTICATED
        await assert_refused(running.call("ModelInfer", **encoded(pictures[:1])), denied, "unauthorized")
        await assert_refused(running.call("ServerMetadata", metadata=[("x-api-key", "no")]), denied, "unauthorized")
        for metadata in ([("x-api-key", "the-key")], [("authorization", "Bearer the-key"), ("x-request-id", "a-1")]):
            call = running.call("ModelInfer", metadata=metadata, **encoded(pictures[:1]))
            assert (await call).model_version == "1"
        assert dict(await call.trailing_metadata())["x-request-id"] == "a-1"
        assert (await running.call("ServerReady")).ready
        health = health_pb2_grpc.HealthStub(running.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_those_who_watch_the_standard_health_service_are_told_of_the_end(running: Running) -> None:
    health = health_pb2_grpc.HealthStub(running.channel)
    watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
    await running.rpc.say_not_serving()
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await running.call("ServerLive")).live, "calls are still answered"


async def test_what_was_taken_is_answered_before_the_end(
    load: Load, trained_store: Path, pictures: list[bytes]
) -> None:
    async with serving(load, trained_store, workers=64, inline_decode_pixels=0) as running:
        with busy(running.catalogue._decode_pool):
            entered, _ = turnstile(running.catalogue.admission)
            taken = asyncio.ensure_future(running.call("ModelInfer", **encoded(pictures[:3])))
            await entered.wait()
            ending = asyncio.create_task(running.rpc.stop(30))
            await asyncio.sleep(0)
        assert (await taken).model_name == "digits"
        await ending


@pytest.mark.parametrize("leaves", ["cancels", "runs out of time"])
async def test_a_client_that_leaves_gives_its_place_back(
    load: Load, trained_store: Path, pictures: list[bytes], leaves: str
) -> None:
    async with serving(load, trained_store, workers=64, inline_decode_pixels=0, max_pending=3) as running:
        admission = running.catalogue.admission
        entered, left = turnstile(admission)
        with busy(running.catalogue._decode_pool):
            call = running.call("ModelInfer", timeout=30 if leaves == "cancels" else 0.2, **encoded(pictures[:3]))
            if leaves == "cancels":
                await entered.wait()
                call.cancel()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await call
            await left.wait()
            assert admission.pending == 0
        assert (await running.call("ModelInfer", **encoded(pictures[:3]))).model_name == "digits"


VALUES = st.binary(max_size=40)
TENSORS = st.builds(
    lambda name, datatype, shape, contents: pb.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, contents=contents
    ),
    st.just("image") | st.text(max_size=5),
    st.sampled_from(["BYTES", "UINT8", "FP32", ""]),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=5),
    st.builds(
        lambda uint, some: pb.InferTensorContents(uint_contents=uint, bytes_contents=some),
        st.lists(st.integers(0, 2**32 - 1), max_size=4),
        st.lists(VALUES, max_size=3),
    )
    | st.none(),
)
MESSAGES = st.builds(
    lambda inputs, raw: pb.ModelInferRequest(model_name="digits", inputs=inputs, raw_input_contents=raw),
    st.lists(TENSORS, max_size=2),
    st.lists(VALUES, max_size=2),
).map(lambda message: message.SerializeToString())


@given(data=st.binary(max_size=200) | MESSAGES)
def test_whatever_is_sent_is_pictures_or_a_sentence(manifest: Manifest, data: bytes) -> None:
    def check_count(pictures: int) -> None:
        if not 1 <= pictures <= 16:
            raise MalformedRequest("Too many, or none.")

    reader = Reader(manifest, parse_json=bytes, check_count=check_count)
    try:
        request = infer_request(read(pb.ModelInferRequest, data), reader)
    except (MalformedRequest, UploadTooLarge) as exc:
        assert str(exc).endswith(".")  # noqa: PT017 - either way is right
    else:
        assert 1 <= len(request.pictures) <= 16


@pytest.mark.parametrize("suffix", ["py", "pyi"])
def test_the_generated_module_is_that_of_the_definition(repository: Path, tmp_path: Path, suffix: str) -> None:
    package = "app/api/protocols/open_inference"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            f"{package}/open_inference.proto",
        ],
        cwd=repository,
        check=True,
    )
    made = tmp_path / package / f"open_inference_pb2.{suffix}"
    assert made.read_text() == (repository / package / made.name).read_text(), "run `make proto`"


def test_grpc_is_not_imported_where_it_is_not_asked_for(repository: Path) -> None:
    """Neither in the process that workers are forked from, nor in workers without the port."""
    script = (
        "import sys, app.process.worker, app.process.server; print(*[name for name in sys.modules if 'grpc' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
