"""Measure a request's CPU time by stage, in microseconds that add up.

The service runs under the closed loop to measure the total of the service and the generator. Then its own protocol,
predictor and batcher are run in this process without a socket, with one stage after another replaced by a known answer:
the time that a replacement saves is the stage's time among the others, with caches as cold as in the service.
"""

import asyncio
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import uvicorn
from uvicorn.server import ServerState

from app.api import questions
from app.api.inference import Call
from app.contract.preprocessing import preprocess
from app.contract.wish import Wish
from app.main import create_app, load_from
from app.process.http_server.server import uvicorn_config
from app.settings import Settings
from benchmarks.harness.contestant import ours
from benchmarks.harness.service import HOST, running
from benchmarks.harness.table import table
from benchmarks.harness.workload import Workload
from benchmarks.harness.wrk import drive

_ROUNDS = 9
_IN_FLIGHT = 32
_REQUESTS_EACH = 60


@dataclass(frozen=True)
class Stage:
    name: str
    microseconds: float


@dataclass(frozen=True)
class Stages:
    """`stages` add up to a request's time on both cores at `requests_per_s`."""

    requests_per_s: float
    stages: tuple[Stage, ...]

    def markdown(self) -> str:
        total = sum(stage.microseconds for stage in self.stages)
        rows = [[each.name, f"{each.microseconds:.0f}", f"{each.microseconds / total:.0%}"] for each in self.stages]
        return table(["stage", "µs of CPU", "share"], [*rows, ["together", f"{total:.0f}", ""]])


def measure_stages(workload: Workload, *, seconds: float) -> Stages:
    """Measure the OpenVINO engine with two workers under `workload`, and the stages of one worker in this process."""
    with running(ours("openvino", workers=2), workload) as service:
        url = f"http://{HOST}:{service.port}/predict"
        drive(url, workload.requests, connections=workload.main_connections, seconds=seconds)
        before, children_before = service.tree.cpu_seconds(), _children_seconds()
        found = drive(url, workload.requests, connections=workload.main_connections, seconds=seconds)
        in_service = (service.tree.cpu_seconds() - before) / found.requests * 1e6
        in_generator = (_children_seconds() - children_before) / found.requests * 1e6
    settings = Settings(model_store=workload.store, workers=2, log_level="error")
    steps = asyncio.run(_Driver(settings, workload.requests[0].read_bytes(), workload.pictures[0]).steps())
    without_sockets = sum(step.microseconds for step in steps)
    return Stages(
        found.requests_per_s,
        (
            Stage("load generator (wrk), with its side of the sockets", in_generator),
            Stage("sockets, event loop, colder caches than in one process", in_service - without_sockets),
            *steps,
        ),
    )


class _Driver:
    """Sends one request again and again over simulated connections."""

    def __init__(self, settings: Settings, request: bytes, picture: bytes) -> None:
        self._request = request
        self._picture = picture
        loaded = load_from(settings)
        self._image = preprocess(picture, loaded.models[0].loaded.bundle.manifest.preprocessing)
        self._app = create_app(settings, loaded)
        self._config = uvicorn_config(settings, self._app)
        self._config.load()

    async def steps(self) -> list[Stage]:
        """Return the medians of each stage over some rounds."""
        async with self._app.router.lifespan_context(self._app) as yielded:
            state: dict[str, Any] = dict(yielded or {})
            inference = self._app.state.inference
            (classifier,) = inference.catalogue.models
            batcher = classifier._batcher  # noqa: SLF001 - stages have no public interface
            probabilities = np.full((1024, len(classifier.manifest.labels)), 0.1, np.float32)
            one = questions.Questions(inference).one(None, Wish(), "image/png")
            written = one.write(classifier, [probabilities[0]])

            def answer_soon(call: Call, *_: Any, **__: Any) -> None:
                call.model = classifier
                call.replies = (call,)
                asyncio.get_running_loop().call_soon(call.set_result, probabilities[0])

            replacements: list[tuple[str, Any, str, Callable[..., Any]]] = [
                ("inference", batcher, "_run", lambda batch: probabilities[: len(batch)]),
                ("decode, resize", batcher, "_prepare", lambda _: self._image),
                ("answer as JSON", questions.OnePicture, "write", lambda *_: written),
                ("multipart form", questions, "picture_of", lambda *_, **__: self._picture),
                ("header, limits, queue, batch", inference, "begin", answer_soon),
            ]
            rounds = [await self._one_round(state, replacements) for _ in range(_ROUNDS)]
        medians = [statistics.median(taken) for taken in zip(*rounds, strict=True)]
        names = [name for name, *_ in replacements]
        savings = [before - after for before, after in pairwise(medians)]
        return [
            Stage("HTTP: parse the request, write the answer", medians[-1]),
            *(Stage(name, saved) for name, saved in zip(reversed(names), reversed(savings), strict=True)),
        ]

    async def _one_round(self, state: Any, replacements: list[tuple[str, Any, str, Callable[..., Any]]]) -> list[float]:
        """Return microseconds per request: without replacement, then with one more replacement each time."""
        taken = [await self._drive(state)]
        patches = []
        try:
            for _, owner, attribute, stand_in in replacements:
                patches.append(patch.object(owner, attribute, stand_in))
                patches[-1].start()
                taken.append(await self._drive(state))
        finally:
            for each in reversed(patches):
                each.stop()
        return taken

    async def _drive(self, state: Any) -> float:
        connections = [_Connection(self._config, state, self._request) for _ in range(_IN_FLIGHT)]
        began = time.process_time()
        for connection in connections:
            connection.send()
        for connection in connections:
            await connection.done
        return (time.process_time() - began) / (_IN_FLIGHT * _REQUESTS_EACH) * 1e6


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


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
