"""Measure a request's CPU time by stage, in microseconds that add up, for each of three ways to send it.

The service runs under the closed loop to measure the total of the service and the generator. Then its own protocol,
predictor and batcher are run in this process without a socket, with one stage after another replaced by a known answer:
the time that a replacement saves is the stage's time among the others, with caches as cold as in the service.
"""

import asyncio
import resource
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast, get_args
from unittest.mock import patch

import numpy as np
import uvicorn
from numpy.typing import NDArray
from uvicorn.server import ServerState

from app.api import questions
from app.api.inference import Call, Message
from app.api.lifecycle import Lifecycle
from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.api.protocols.open_inference import rpc
from app.api.protocols.open_inference.questions import HttpInfer, InferQuestion, readers_of
from app.api.protocols.open_inference.repository import Repository
from app.api.protocols.open_inference.requests import InferRequest
from app.contract.answer_options import AnswerOptions
from app.contract.bundle import read_manifest
from app.contract.preprocessing import preprocess
from app.main import create_app, load_from, open_gate
from app.metrics import Metrics
from app.process.http_server.server import uvicorn_config
from app.serving.classifier import Classifier
from app.settings import Settings
from benchmarks.harness.contestant import ours
from benchmarks.harness.protocol_requests import ProtocolName, requests_by, with_lengths
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.table import table
from benchmarks.harness.workload import Workload
from benchmarks.harness.wrk import drive
from benchmarks.serving.protocols import by_grpc

_ROUNDS = 9
_IN_FLIGHT = 32
_REQUESTS_EACH = 60


@dataclass(frozen=True)
class Stage:
    name: str
    microseconds: float


ProtocolOfStages = Literal["multipart", "v2 binary BYTES", "gRPC BYTES"]
PROTOCOLS: tuple[ProtocolOfStages, ...] = get_args(ProtocolOfStages)
Replacement = tuple[str, Any, str, Callable[..., Any]]
"""A stage's name, and the attribute of an owner whose replacement leaves it out."""


@dataclass(frozen=True)
class Stages:
    """`stages` add up to a request's time on both cores at `requests_per_s`."""

    protocol: ProtocolOfStages
    requests_per_s: float
    stages: tuple[Stage, ...]

    def markdown(self) -> str:
        total = sum(stage.microseconds for stage in self.stages)
        rows = [[each.name, f"{each.microseconds:.0f}", f"{each.microseconds / total:.0%}"] for each in self.stages]
        return table([self.protocol, "µs of CPU", "share"], [*rows, ["together", f"{total:.0f}", ""]])


def measure_stages(workload: Workload, protocol: ProtocolOfStages, *, seconds: float) -> Stages:
    """Measure the OpenVINO engine with two workers under `workload`, and the stages of one worker in this process."""
    with running(replace(ours("openvino", workers=2), has_grpc=True), workload) as service:
        load = _load(service, workload, protocol)
        load(seconds)
        before, generator_before = service.tree.cpu_seconds(), _generator_seconds(protocol)
        began = time.perf_counter()
        requests_per_s = load(seconds)
        requests = requests_per_s * (time.perf_counter() - began)
        in_service = (service.tree.cpu_seconds() - before) / requests * 1e6
        in_generator = (_generator_seconds(protocol) - generator_before) / requests * 1e6
    settings = Settings(model_store=workload.store, workers=2, log_level="error")
    kind = _RpcDriver if protocol == "gRPC BYTES" else _HttpDriver
    steps = asyncio.run(kind(settings, workload, protocol).steps())
    without_sockets = sum(step.microseconds for step in steps)
    return Stages(
        protocol,
        requests_per_s,
        (
            Stage("load generator, with its side of the sockets", in_generator),
            Stage("sockets, event loop, colder caches than in one process", in_service - without_sockets),
            *steps,
        ),
    )


def _load(service: Service, workload: Workload, protocol: ProtocolOfStages) -> Callable[[float], float]:
    """Return what loads the service for some seconds, and returns requests/s."""
    if protocol == "gRPC BYTES":
        send = by_grpc(read_manifest(workload.bundle).name, workload.pictures, service.spare_port, 1)
        return lambda seconds: send(service, seconds)[0]
    url, requests = f"http://{HOST}:{service.port}", requests_by(protocol, workload)
    return lambda seconds: drive(url, requests, connections=workload.main_connections, seconds=seconds).requests_per_s


class _Driver(ABC):
    """Sends one request again and again without sockets."""

    last_stage: str
    """What is left if all else is replaced."""

    def __init__(self, settings: Settings, workload: Workload, protocol: ProtocolOfStages) -> None:
        self.settings = settings
        self.workload = workload
        self.protocol = protocol
        self.picture = workload.pictures[0]
        loaded = load_from(settings)
        self._image = preprocess(self.picture, loaded.models[0].loaded.bundle.manifest.preprocessing)
        self.app = create_app(settings, loaded)

    @abstractmethod
    def own(self, classifier: Classifier, row: NDArray[np.float32]) -> list[Replacement]:
        """Return the replacements of writing the answer and of reading the message."""

    @abstractmethod
    async def drive(self, state: dict[str, Any]) -> float:
        """Return microseconds per request."""

    async def steps(self) -> list[Stage]:
        """Return the medians of each stage over some rounds."""
        async with self.app.router.lifespan_context(self.app) as yielded:
            state: dict[str, Any] = dict(yielded or {})
            inference = self.app.state.inference
            classifier: Classifier
            (classifier,) = inference.catalogue.models
            batcher = classifier._batcher  # noqa: SLF001 - stages have no public interface
            probabilities = np.full((1024, len(classifier.manifest.labels)), 0.1, np.float32)

            def answer_soon(call: Call, *_: Any, **__: Any) -> Classifier:
                call.model = classifier
                call.replies = (call,)
                asyncio.get_running_loop().call_soon(call.set_result, probabilities[0])
                return classifier

            replacements: list[Replacement] = [
                ("inference", batcher, "_run", lambda batch: probabilities[: len(batch)]),
                ("decode, resize", batcher, "_prepare", lambda _: self._image),
                *self.own(classifier, probabilities[0]),
                ("header, limits, queue, batch", inference, "begin", answer_soon),
            ]
            rounds = [await self._one_round(state, replacements) for _ in range(_ROUNDS)]
        medians = [statistics.median(taken) for taken in zip(*rounds, strict=True)]
        names = [name for name, *_ in replacements]
        savings = [before - after for before, after in pairwise(medians)]
        return [
            Stage(self.last_stage, medians[-1]),
            *(Stage(name, saved) for name, saved in zip(reversed(names), reversed(savings), strict=True)),
        ]

    async def _one_round(self, state: Any, replacements: list[Replacement]) -> list[float]:
        """Return microseconds per request: without replacement, then with one more replacement each time."""
        taken = [await self.drive(state)]
        patches = []
        try:
            for _, owner, attribute, stand_in in replacements:
                patches.append(patch.object(owner, attribute, stand_in))
                patches[-1].start()
                taken.append(await self.drive(state))
        finally:
            for each in reversed(patches):
                each.stop()
        return taken


class _HttpDriver(_Driver):
    """Requests over simulated connections."""

    last_stage = "HTTP: parse the request, write the answer"

    def __init__(self, settings: Settings, workload: Workload, protocol: ProtocolOfStages) -> None:
        super().__init__(settings, workload, protocol)
        self._request = requests_by(cast(ProtocolName, protocol), workload)[0].read_bytes()
        self._config = uvicorn_config(settings, self.app)
        self._config.load()

    def own(self, classifier: Classifier, row: NDArray[np.float32]) -> list[Replacement]:
        asked = questions.Questions(self.app.state.inference)
        if self.protocol == "multipart":
            written = asked.one(questions.Asked(), AnswerOptions(), "image/png").write(classifier, [row])
            return [
                ("answer as JSON", questions.OnePicture, "write", lambda *_: written),
                ("multipart form", questions, "picture_of", lambda *_, **__: self.picture),
            ]
        readers = readers_of(self.app.state.inference)
        v2 = HttpInfer(asked, readers, classifier.name, None, "0")
        v2.check_head()
        v2.read(self.picture, classifier)
        binary = v2.write(classifier, [row])
        return [
            ("answer as a tensor", HttpInfer, "write", lambda *_: binary),
            ("message with a tensor", HttpInfer, "read", _reads(v2.asked, self.picture)),
        ]

    async def drive(self, state: dict[str, Any]) -> float:
        connections = [_Connection(self._config, state, self._request) for _ in range(_IN_FLIGHT)]
        began = time.process_time()
        for connection in connections:
            connection.send()
        for connection in connections:
            await connection.done
        return (time.process_time() - began) / (_IN_FLIGHT * _REQUESTS_EACH) * 1e6


class _RpcDriver(_Driver):
    """Calls of the handler that grpc.aio would call."""

    last_stage = "the handler: access, counts, the message's bytes"

    def __init__(self, settings: Settings, workload: Workload, protocol: ProtocolOfStages) -> None:
        super().__init__(settings, workload, protocol)
        metrics = Metrics()
        self._service = rpc.OpenInferenceService(
            questions.Questions(self.app.state.inference),
            cast(Repository, None),
            gate=open_gate(settings, metrics),
            lifecycle=Lifecycle(),
            metrics=metrics,
            version="",
        )
        model = read_manifest(workload.bundle).name
        tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1, 1])
        self._message = pb.ModelInferRequest(
            model_name=model, inputs=[tensor], raw_input_contents=[with_lengths([self.picture])]
        )
        (self._call,) = (
            handler.unary_unary
            for handler in [self._service.handlers().service(cast(Any, _Details(f"/{rpc.SERVICE}/ModelInfer")))]
            if handler is not None
        )

    def own(self, classifier: Classifier, row: NDArray[np.float32]) -> list[Replacement]:
        inference = self.app.state.inference
        question = rpc.RpcInfer(questions.Questions(inference), readers_of(inference), self._message)
        question.read(b"", classifier)
        written = question.write(classifier, [row])
        return [
            ("answer as a message", rpc.RpcInfer, "write", lambda *_: written),
            ("tensor of the message", rpc.RpcInfer, "read", _reads(question.asked, self.picture)),
        ]

    async def drive(self, state: dict[str, Any]) -> float:
        data = self._message.SerializeToString()

        async def caller() -> None:
            for _ in range(_REQUESTS_EACH):
                await self._call(data, _Context())

        began = time.process_time()
        await asyncio.gather(*(asyncio.create_task(caller()) for _ in range(_IN_FLIGHT)))
        return (time.process_time() - began) / (_IN_FLIGHT * _REQUESTS_EACH) * 1e6


def _reads(asked: InferRequest, picture: bytes) -> Callable[..., Message]:
    def read(question: InferQuestion, *_: Any) -> Message:
        question.asked = asked
        return [picture], None

    return read


class _Details(NamedTuple):
    """What gRPC asks a service's handlers by."""

    method: str
    invocation_metadata: tuple[()] = ()


class _Context:
    """What the handler asks of gRPC."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "grpc-python-asyncio"),)

    def set_trailing_metadata(self, _: Any) -> None: ...

    def time_remaining(self) -> float:
        return 30.0


class _Connection:
    """A transport whose client sends the next request as soon as it gets an answer."""

    def __init__(self, config: uvicorn.Config, state: Any, request: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self.done = self._loop.create_future()
        self._request = request
        self._left = _REQUESTS_EACH
        protocol: Any = config.http_protocol_class
        self._protocol = protocol(config=config, server_state=ServerState(), app_state=state)
        self._protocol.connection_made(self)

    def send(self) -> None:
        if self._left:
            self._left -= 1
            self._protocol.data_received(self._request)
        else:
            self._protocol.connection_lost(ConnectionResetError())
            self.done.set_result(None)

    def write(self, _answer: bytes) -> None:
        self._loop.call_soon(self.send)

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _generator_seconds(protocol: ProtocolOfStages) -> float:
    """Return the CPU time of the load so far: wrk is a child, the client of gRPC this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF if protocol == "gRPC BYTES" else resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
