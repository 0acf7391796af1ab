"""The results: every sample, as in results.json, and the medians in the tables."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from app.system.atomic_write import atomic_write
from benchmarks.harness.machine import Machine
from benchmarks.harness.open_loop import OpenLoop
from benchmarks.harness.request import Body
from benchmarks.harness.wrk import Load
from benchmarks.serving.in_process import PipelineSpeed, Split
from benchmarks.serving.soak import Soak

ByRound = dict[int, float]
"""A figure for each round that has one."""


@dataclass(frozen=True)
class Sample:
    """One start of one contestant."""

    round: int
    start_s: float
    idle_cpu_percent: float | None
    """Measured in the first round only."""
    memory_mb: float
    processes: int
    labels: tuple[str, ...]
    loads: tuple[Load, ...]


@dataclass(frozen=True)
class FixedRate:
    """One rate of the open loop, as a share of the closed loop's requests/s measured just before; `capped` if the
    generator could not reach it."""

    share: float
    capped: bool
    result: OpenLoop


@dataclass
class ServiceResult:
    name: str
    group: str
    about: str
    precision: str
    samples: list[Sample] = field(default_factory=list)
    fixed_rates: list[FixedRate] = field(default_factory=list)
    failure: str | None = None

    def loads(self, connections: int, body: Body = "multipart") -> list[Load]:
        return list(self._loads(connections, body).values())

    def at(self, connections: int, figure: Callable[[Load], float], body: Body = "multipart") -> float | None:
        """Return a figure's median over the rounds, None if there is none."""
        return middle(self.by_round(connections, figure, body).values())

    def by_round(self, connections: int, figure: Callable[[Load], float], body: Body = "multipart") -> ByRound:
        return {number: figure(load) for number, load in self._loads(connections, body).items()}

    def _loads(self, connections: int, body: Body) -> dict[int, Load]:
        return {
            sample.round: load
            for sample in self.samples
            for load in sample.loads
            if (load.connections, load.body) == (connections, body)
        }


@dataclass
class PipelineResult:
    name: str
    precision: str
    speeds: list[PipelineSpeed] = field(default_factory=list)
    failure: str | None = None

    def best(self) -> tuple[float, Split] | None:
        """Return the median pictures a second of the best split, and that split."""
        by_split: dict[Split, list[float]] = {}
        for speed in self.speeds:
            by_split.setdefault(speed.split, []).append(speed.pictures_per_s)
        middles = [(median(speeds), split) for split, speeds in by_split.items()]
        return max(middles, default=None, key=lambda pair: pair[0])

    def by_round(self) -> ByRound:
        """Return the pictures a second of each round's best split."""
        found: ByRound = {}
        for speed in self.speeds:
            found[speed.round] = max(speed.pictures_per_s, found.get(speed.round, 0.0))
        return found

    def fastest_splits(self, count: int) -> list[Split]:
        ordered = sorted(self.speeds, key=lambda speed: speed.pictures_per_s, reverse=True)
        return list(dict.fromkeys(speed.split for speed in ordered))[:count]


@dataclass
class WorkloadResult:
    name: str
    pictures: str
    connections: tuple[int, ...]
    main_connections: int
    batch_connections: tuple[int, ...]
    services: list[ServiceResult]
    pipelines: list[PipelineResult]
    generator_limit: OpenLoop | None = None
    """The open-loop generator against the bare application, at full speed."""

    def service(self, name: str) -> ServiceResult | None:
        return next((service for service in self.services if service.name == name), None)

    def pipeline(self, name: str) -> PipelineResult | None:
        return next((pipeline for pipeline in self.pipelines if pipeline.name == name), None)

    def bare(self, connections: int) -> ByRound:
        """Return the requests a second of the faster bare application."""
        return self._best("ceiling", connections, lambda load: load.requests_per_s, max)

    def bare_p50_ms(self, connections: int) -> ByRound:
        return self._best("ceiling", connections, lambda load: load.p50_ms, min)

    def best_peer(self, connections: int) -> ByRound:
        """Return the requests a second of the fastest peer."""
        return self._best("peer", connections, lambda load: load.requests_per_s, max)

    def in_process(self, precision: str) -> ByRound:
        """Return the pictures a second on OpenVINO without HTTP."""
        pipeline = self.pipeline(f"in-process-openvino-{precision}")
        return pipeline.by_round() if pipeline else {}

    def limit(self, connections: int, precision: str) -> ByRound:
        """Return 1 / (1 / bare + 1 / in process) on OpenVINO: no Python service on this uvicorn passes it."""
        bare, inside = self.bare(connections), self.in_process(precision)
        return {number: 1 / (1 / bare[number] + 1 / inside[number]) for number in bare.keys() & inside.keys()}

    def _best(
        self, group: str, connections: int, figure: Callable[[Load], float], best: Callable[[float, float], float]
    ) -> ByRound:
        found: ByRound = {}
        for service in self.services:
            if service.group == group:
                for number, value in service.by_round(connections, figure).items():
                    found[number] = best(value, found.get(number, value))
        return found


@dataclass
class Results:
    command: str
    machine: Machine
    rounds: int
    seconds: float
    workloads: list[WorkloadResult] = field(default_factory=list)
    soak: Soak | None = None
    """The newest soak in the same folder, which is a separate run."""
    finished: bool = False

    def workload(self, name: str) -> WorkloadResult | None:
        return next((workload for workload in self.workloads if workload.name == name), None)

    def write(self, file: Path) -> None:
        """Write results.json atomically."""
        with atomic_write(file, mode=0o644) as stream:
            stream.write((json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode())


def over(figures: ByRound, base: ByRound) -> ByRound:
    """Return the ratio of each round that has both, which cancels the machine's drift between rounds."""
    return {number: figures[number] / base[number] for number in sorted(figures.keys() & base.keys()) if base[number]}


def middle(figures: Iterable[float]) -> float | None:
    """Return the median, None if there are no values."""
    known = list(figures)
    return median(known) if known else None
