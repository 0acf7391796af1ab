"""Soak test: send one contestant a very large number of requests, and record its memory meanwhile."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness.contestant import Contestant
from benchmarks.harness.machine import Machine
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.workload import Workload
from benchmarks.harness.wrk import Load, drive

_FIRST_S = 5.0


@dataclass(frozen=True)
class SoakPoint:
    """The state when the memory was read."""

    requests: int
    memory_mb: float
    requests_per_s: float
    not_ok: int


@dataclass(frozen=True)
class Soak:
    contestant: str
    workload: str
    connections: int
    date: str
    commit: str
    points: tuple[SoakPoint, ...]
    """The first point is after the warm-up."""

    @property
    def requests(self) -> int:
        """Return the number of requests that were answered after the warm-up."""
        return self.points[-1].requests - self.points[0].requests

    @property
    def growth_mb(self) -> float:
        return self.points[-1].memory_mb - self.points[0].memory_mb

    def write(self, file: Path) -> None:
        figures = {**asdict(self), "growth_mb": self.growth_mb}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_soak(file: Path) -> Soak | None:
    """Read the file of `Soak.write`, None if there is none."""
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    del found["growth_mb"]
    return Soak(**{**found, "points": tuple(SoakPoint(**point) for point in found["points"])})


def soak(contestant: Contestant, workload: Workload, machine: Machine, *, requests: int, every: int) -> Soak:
    """Load the contestant until `requests` are answered after a warm-up of `every`; read its memory every `every`."""
    points: list[SoakPoint] = []
    with running(contestant, workload) as service:
        seconds, answered, not_ok = _FIRST_S, 0, 0
        while not points or answered < points[0].requests + requests:
            load = _drive(service, workload, seconds)
            answered += load.requests
            not_ok += load.not_ok
            seconds = every / max(1.0, load.requests_per_s)
            if not points and answered < every:
                continue  # still warming up
            points.append(SoakPoint(answered, service.tree.proportional_mb(), load.requests_per_s, not_ok))
            print(_line(points[-1], points[0]), flush=True)
    return Soak(
        contestant=contestant.name,
        workload=workload.name,
        connections=workload.main_connections,
        date=machine.date,
        commit=machine.commit,
        points=tuple(points),
    )


def _drive(service: Service, workload: Workload, seconds: float) -> Load:
    return drive(
        f"http://{HOST}:{service.port}/predict",
        workload.requests,
        connections=workload.main_connections,
        seconds=seconds,
    )


def _line(point: SoakPoint, first: SoakPoint) -> str:
    return (
        f"{point.requests:>12,} requests {point.memory_mb:>8.1f} MB {point.memory_mb - first.memory_mb:>+7.1f} MB "
        f"{point.requests_per_s:>9,.0f}/s" + (f"  {point.not_ok} not 200" if point.not_ok else "")
    )
