"""Measure pictures a second of one service by protocol: multipart, raw, batches, both inference protocols, and gRPC.

All protocols take turns within a round. wrk loads HTTP; gRPC has a client in Python, which takes more of the cores that
it shares with the service, so its figure is a lower bound.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import grpc

from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.contract.bundle import read_manifest
from benchmarks.harness.contestant import ours
from benchmarks.harness.errors import LoadFailed
from benchmarks.harness.protocol_requests import ProtocolName, parts, requests_by, with_lengths
from benchmarks.harness.request import BATCH_PICTURES
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.table import number, ratio, table
from benchmarks.harness.workload import Workload
from benchmarks.harness.wrk import drive

_AT_ONCE_OF_ONE = 64
_AT_ONCE_OF_MANY = 8
_GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"

Drive = Callable[[Service, float], tuple[float, int]]
"""Load the service for some seconds; return pictures a second, and the number of requests without an answer 200."""


@dataclass(frozen=True)
class Protocol:
    """`pictures` is the number of pictures in a request."""

    name: str
    pictures: int
    drive: Drive

    @property
    def at_once(self) -> int:
        """Requests in flight."""
        return _AT_ONCE_OF_ONE if self.pictures == 1 else _AT_ONCE_OF_MANY


@dataclass(frozen=True)
class ProtocolSpeed:
    """Pictures a second, the service's CPU for each picture, and requests without an answer 200: one for each round.

    Other work on the machine changes the rates far more than the CPU time.
    """

    protocol: Protocol
    pictures_per_s: list[float]
    cpu_us: list[float]
    not_ok: list[int]


def measure_protocols(workload: Workload, *, workers: int, rounds: int, seconds: float) -> list[ProtocolSpeed]:
    """Load the service by every protocol in turns. Raises a BenchmarkError."""
    port = _free_port()
    service = ours("openvino", workers=workers)
    service = replace(service, variables={**service.variables, "IMAGECLASS_GRPC_PORT": str(port)})
    found = [ProtocolSpeed(protocol, [], [], []) for protocol in _protocols(workload, port)]
    with running(service, workload) as started:
        for each in found:
            each.protocol.drive(started, 1)
        for number_of_round in range(rounds):
            turn = number_of_round % len(found)
            for each in found[turn:] + found[:turn]:
                before, began = started.tree.cpu_seconds(), perf_counter()
                pictures_per_s, not_ok = each.protocol.drive(started, seconds)
                cores = (started.tree.cpu_seconds() - before) / (perf_counter() - began)
                each.cpu_us.append(1e6 * cores / max(pictures_per_s, 1))
                each.pictures_per_s.append(pictures_per_s)
                each.not_ok.append(not_ok)
                print(
                    f"{each.protocol.name}, {each.protocol.pictures}: {each.pictures_per_s[-1]:,.0f} pictures/s",
                    flush=True,
                )
    return found


def protocols_table(found: Sequence[ProtocolSpeed]) -> str:
    """Return a table of medians; ratios are taken within a round."""
    first = found[0].pictures_per_s
    rows = [
        [
            each.protocol.name,
            str(each.protocol.pictures),
            str(each.protocol.at_once),
            number(median(each.pictures_per_s)),
            ratio(median(one / other for one, other in zip(each.pictures_per_s, first, strict=True))),
            number(median(each.cpu_us)),
            str(sum(each.not_ok)),
        ]
        for each in found
    ]
    header = [
        "protocol",
        "pictures in a request",
        "requests at once",
        "pictures/s",
        f"over {found[0].protocol.name}",
        "CPU µs/picture",
        "not 200",
    ]
    return table(header, rows)


def _protocols(workload: Workload, grpc_port: int) -> list[Protocol]:
    manifest = read_manifest(workload.bundle)
    many = BATCH_PICTURES
    both: list[ProtocolName] = ["v2 binary BYTES", "v2 binary UINT8", "TensorFlow Serving b64"]
    return [
        Protocol("multipart", 1, _by_wrk(requests_by("multipart", workload), 1)),
        Protocol("raw body", 1, _by_wrk(requests_by("raw body", workload), 1)),
        Protocol("batch", many, _by_wrk(requests_by("batch", workload), many)),
        *(
            Protocol(protocol, count, _by_wrk(requests_by(protocol, workload, many=count > 1), count))
            for protocol in both
            for count in (1, many)
        ),
        *(
            Protocol("gRPC BYTES", count, by_grpc(manifest.name, workload.pictures, grpc_port, count))
            for count in (1, many)
        ),
    ]


def _by_wrk(requests: Sequence[Path], pictures: int) -> Drive:
    connections = _AT_ONCE_OF_ONE if pictures == 1 else _AT_ONCE_OF_MANY

    def by_wrk(service: Service, seconds: float) -> tuple[float, int]:
        load = drive(f"http://{HOST}:{service.port}", requests, connections=connections, seconds=seconds)
        return load.requests_per_s * pictures, load.not_ok

    return by_wrk


def by_grpc(model: str, pictures: Sequence[bytes], port: int, count: int) -> Drive:
    """Return what sends pictures by the Open Inference Protocol over gRPC, to any server of it."""
    messages = [
        pb.ModelInferRequest(
            model_name=model,
            inputs=[pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[count, 1])],
            raw_input_contents=[with_lengths(part)],
        ).SerializeToString()
        for part in parts(pictures, count)
    ]
    at_once = _AT_ONCE_OF_ONE if count == 1 else _AT_ONCE_OF_MANY

    async def call(seconds: float) -> float:
        turns = itertools.cycle(messages)
        done = 0
        async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
            ask = channel.unary_unary(_GRPC_METHOD)
            began = perf_counter()
            end = began + seconds

            async def work() -> None:
                nonlocal done
                while perf_counter() < end:
                    await ask(next(turns), timeout=30)
                    done += count

            await asyncio.gather(*(work() for _ in range(at_once)))
            return done / (perf_counter() - began)

    def by_grpc(_: Service, seconds: float) -> tuple[float, int]:
        try:
            return asyncio.run(call(seconds)), 0
        except grpc.aio.AioRpcError as exc:
            raise LoadFailed(f"gRPC: {exc.details()}") from exc

    return by_grpc


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])
