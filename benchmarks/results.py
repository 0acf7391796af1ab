"""What was measured: every sample, as results.json holds it, and the medians that the tables show."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.in_process import PipelineSpeed
from benchmarks.machine import Machine
from benchmarks.open_loop import OpenLoop
from benchmarks.wrk import Load


@dataclass(frozen=True)
class Sample:
    """One start of one contestant."""

    round: int
    start_s: float
    idle_cpu_percent: float
    memory_mb: float
    processes: int
    labels: tuple[str, ...]
    loads: tuple[Load, ...]


@dataclass(frozen=True)
class FixedRate:
    """One rate of the open loop, as a share of the peak; `capped` where the generator could not send so many."""

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

    def loads(self, connections: int) -> list[Load]:
        return [load for sample in self.samples for load in sample.loads if load.connections == connections]

    def at(self, connections: int, figure: Callable[[Load], float]) -> float | None:
        """Return the median over the rounds of a figure, None where there is none."""
        return middle(figure(load) for load in self.loads(connections))

    def peak(self) -> tuple[float, int] | None:
        """Return the most requests a second and the connections that gave them."""
        found = {load.connections for sample in self.samples for load in sample.loads}
        speeds = [(self.at(connections, lambda load: load.requests_per_s) or 0.0, connections) for connections in found]
        return max(speeds, default=None)


@dataclass
class PipelineResult:
    name: str
    precision: str
    speeds: list[PipelineSpeed] = field(default_factory=list)
    failure: str | None = None

    def best(self) -> tuple[float, str] | None:
        """Return the median pictures a second of the best split, and that split."""
        by_split: dict[str, list[float]] = {}
        for speed in self.speeds:
            by_split.setdefault(speed.split, []).append(speed.pictures_per_s)
        return max(((median(speeds), split) for split, speeds in by_split.items()), default=None)


@dataclass
class WorkloadResult:
    name: str
    pictures: str
    connections: tuple[int, ...]
    main_connections: int
    services: list[ServiceResult]
    pipelines: list[PipelineResult]
    generator_limit: OpenLoop | None = None
    """The open-loop generator against the bare application, as fast as both go."""

    def service(self, name: str) -> ServiceResult | None:
        return next((service for service in self.services if service.name == name), None)

    def bare(self, connections: int) -> float | None:
        """Return the requests a second of the faster bare application."""
        speeds = [service.at(connections, lambda load: load.requests_per_s) for service in self._bare_services()]
        return max((speed for speed in speeds if speed is not None), default=None)

    def bare_p50_ms(self, connections: int) -> float | None:
        latencies = [service.at(connections, lambda load: load.p50_ms) for service in self._bare_services()]
        return min((latency for latency in latencies if latency is not None), default=None)

    def limit(self, connections: int, precision: str) -> float | None:
        """Return 1 / (1 / bare + 1 / in process) on OpenVINO: no Python service on this uvicorn passes it."""
        bare = self.bare(connections)
        name = f"in-process-openvino-{precision}"
        pipeline = next((pipeline for pipeline in self.pipelines if pipeline.name == name), None)
        best = pipeline.best() if pipeline else None
        return 1 / (1 / bare + 1 / best[0]) if bare and best else None

    def _bare_services(self) -> list[ServiceResult]:
        return [service for service in self.services if service.name.startswith("bare-")]


@dataclass
class Results:
    command: str
    machine: Machine
    rounds: int
    seconds: float
    workloads: list[WorkloadResult] = field(default_factory=list)
    finished: bool = False

    def write(self, file: Path) -> None:
        """Write results.json whole or not at all."""
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(file)


def middle(figures: Iterable[float]) -> float | None:
    """Return the median, None of nothing."""
    known = list(figures)
    return median(known) if known else None
