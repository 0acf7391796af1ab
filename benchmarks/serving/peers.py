"""Measure this project beside its peers at equal engines: the same SavedModel on the same OpenVINO in each.

All services are started once and take turns within each round, so that a ratio compares measurements under the same
conditions. The CPU time per request varies less than the rate, because other work on the machine does not count.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from app.contract.bundle import read_manifest
from benchmarks.harness.contestant import Contestant, at_equal_engines, ours
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.protocol_requests import ProtocolName, requests_by
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.table import number, percent, table
from benchmarks.harness.workload import Workload, store_of
from benchmarks.harness.wrk import drive
from benchmarks.serving.protocols import by_grpc

_OUR_PROTOCOLS: tuple[ProtocolName, ...] = ("raw body", "multipart", "v2 binary BYTES", "TensorFlow Serving b64")
_GRPC_AT_ONCE = 64
_SETTLE_S = 1.5
"""A service still works on what it holds when its clients are gone; the next one would share the cores with it."""


@dataclass
class Entry:
    """A service by one protocol, and its rounds: requests/s, ms, CPU µs a request, requests without an answer 200."""

    name: str
    protocol: str
    drive: Callable[[float], tuple[float, float, float, int]] = field(repr=False)
    service: Service
    requests_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    not_ok: list[int] = field(default_factory=list)

    def measure(self, seconds: float) -> None:
        before, began = self.service.tree.cpu_seconds(), perf_counter()
        rate, p50, p99, not_ok = self.drive(seconds)
        cores = (self.service.tree.cpu_seconds() - before) / (perf_counter() - began)
        self.requests_per_s.append(rate)
        self.p50_ms.append(p50)
        self.p99_ms.append(p99)
        self.cpu_us.append(1e6 * cores / max(rate, 1e-9))
        self.not_ok.append(not_ok)
        sleep(_SETTLE_S)


@dataclass(frozen=True)
class PeerComparison:
    workload: str
    connections: int
    entries: Sequence[Entry]
    left_out: Sequence[str]

    def markdown(self) -> str:
        """Return a table of medians. Ratios to the first entry are taken within each round."""
        first = self.entries[0]
        rows = [
            [
                each.name,
                each.protocol,
                number(median(each.requests_per_s)),
                _spread(first.requests_per_s, each.requests_per_s),
                f"{median(each.p50_ms):.2f}",
                f"{median(each.p99_ms):.2f}",
                number(median(each.cpu_us)),
                percent(_share_alike(each.service.labels, first.service.labels)),
                str(sum(each.not_ok)),
            ]
            for each in self.entries
        ]
        header = [
            *("service", "protocol", "requests/s", f"{first.name} over it", "p50 ms", "p99 ms", "CPU µs/request"),
            *("answers as ours", "not 200"),
        ]
        lines = [
            f"{self.workload}, {self.connections} connections, {len(first.not_ok)} rounds.",
            "",
            table(header, rows),
        ]
        return "\n".join([*lines, *(["", *self.left_out] if self.left_out else [])])


def measure_peers(
    workload: Workload, *, rounds: int, seconds: float, connections: int | None = None, only: Sequence[str] = ()
) -> PeerComparison:
    """Start all services, and load each of them by its protocols in turns. Raises a BenchmarkError."""
    connections = connections or workload.main_connections
    entries: list[Entry] = []
    left_out = []
    with ExitStack() as stack:
        for contestant in _taking_part(workload, only):
            try:
                service = stack.enter_context(running(contestant, workload))
            except BenchmarkError as exc:
                if contestant.group == "ours":
                    raise
                left_out.append(f"{contestant.name} is left out: {exc}")
                continue
            entries += _entries(contestant, service, workload, connections)
        for each in entries:
            each.measure(1)
        for each in entries:
            for rounds_of in (each.requests_per_s, each.p50_ms, each.p99_ms, each.cpu_us, each.not_ok):
                rounds_of.clear()
        for number_of_round in range(rounds):
            turn = number_of_round % len(entries)
            for each in entries[turn:] + entries[:turn]:
                each.measure(seconds)
                print(f"{each.name}, {each.protocol}: {each.requests_per_s[-1]:,.0f} requests/s", flush=True)
    return PeerComparison(f"{workload.name}, {workload.describe()}", connections, entries, left_out)


def _taking_part(workload: Workload, only: Sequence[str]) -> list[Contestant]:
    found = at_equal_engines()
    if workload.name == "phone":  # what decoding at a reduced scale saves
        found.insert(1, replace(ours("openvino", workers=2, store=store_of("lite0")), name="ours, whole pictures"))
    return [each for each in found if not only or each.group == "ours" or each.name in only]


def _entries(contestant: Contestant, service: Service, workload: Workload, connections: int) -> list[Entry]:
    """Return what is measured of a service: its protocol (all over HTTP if it is ours), and gRPC if it has it."""
    protocols: Sequence[ProtocolName] = (contestant.protocol,)
    if contestant.group == "ours":
        protocols = _OUR_PROTOCOLS if workload.name == "mnist" else ("raw body",)
    found = []
    for protocol in protocols:
        requests = requests_by(protocol, workload, path=contestant.path)
        found.append(Entry(contestant.name, protocol, _by_wrk(service, requests, connections), service))
    if contestant.has_grpc and workload.name == "mnist":
        model = read_manifest(workload.bundle).name
        send = by_grpc(model, workload.pictures, service.spare_port, 1)

        def drive_grpc(seconds: float) -> tuple[float, float, float, int]:
            rate, not_ok = send(service, seconds)
            return rate, 1e3 * _GRPC_AT_ONCE / rate, float("nan"), not_ok

        found.append(Entry(contestant.name, "gRPC BYTES", drive_grpc, service))
    return found


def _by_wrk(
    service: Service, requests: Sequence[Path], connections: int
) -> Callable[[float], tuple[float, float, float, int]]:
    def by_wrk(seconds: float) -> tuple[float, float, float, int]:
        load = drive(f"http://{HOST}:{service.port}", requests, connections=connections, seconds=seconds)
        return load.requests_per_s, load.p50_ms, load.p99_ms, load.not_ok

    return by_wrk


def _share_alike(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(map(str.__eq__, one, other)) / len(other)


def _spread(ours_: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = sorted(one / other for one, other in zip(ours_, theirs, strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
