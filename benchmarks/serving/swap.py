"""Measure the effect of a deployment on clients: publish versions under load, and time every answer.

Each version is a copy of the bundle under the next number, renamed into the store. The service's log says when each
worker began to load it and when it answered with it; the answers in between are compared with those before the first.
"""

import json
import shutil
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.contract.bundle import MANIFEST
from benchmarks.harness.contestant import Contestant, ours
from benchmarks.harness.errors import LoadFailed
from benchmarks.harness.open_loop import OpenLoop, Trace, drive_at
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.table import milliseconds, ratio, table
from benchmarks.harness.workload import WORK, Workload
from benchmarks.serving.sampling import warm_up

_QUIET_S = 5.0
_PICKUP_S = 20.0
_BETWEEN_S = 0.3
_SHARE = 0.5


@dataclass(frozen=True)
class Swapped:
    """One load and its swaps. Times are of `time.perf_counter`; `loads` has begin and end in each worker."""

    name: str
    load: OpenLoop
    p99_before_ms: float
    p99_loading_ms: float
    answers_loading: int
    pickup_s: tuple[float, ...]
    """Seconds from the rename to the last worker's first answer with the version."""
    load_s: float
    memory_mb: tuple[float, float]
    """The memory of all processes, before the first version and after the last."""


@dataclass(frozen=True)
class Swaps:
    loads: tuple[Swapped, ...]
    workers: int

    def markdown(self) -> str:
        header = ["load", "versions", "requests/s", "p99 before, ms", "while loading", "ratio", "not 200"]
        header += ["pickup, s: median", "longest", "a load, s", "memory, MB", "after"]
        rows = [
            [
                each.name,
                str(len(each.pickup_s)),
                f"{each.load.answered_per_s:,.0f}",
                milliseconds(each.p99_before_ms),
                milliseconds(each.p99_loading_ms),
                ratio(each.p99_loading_ms / each.p99_before_ms),
                str(each.load.not_ok),
                f"{np.median(each.pickup_s):.2f}",
                f"{max(each.pickup_s):.2f}",
                f"{each.load_s:.2f}",
                *(f"{memory:.0f}" for memory in each.memory_mb),
            ]
            for each in self.loads
        ]
        return f"Versions published under load, {self.workers} workers.\n\n{table(header, rows)}"


def measure_swaps(workload: Workload, *, swaps: int, workers: int) -> Swaps:
    """Publish up to `swaps` versions at full load, and as many at half of it. Raises a BenchmarkError."""
    contestant = _that_logs(ours("openvino", workers=workers))
    with running(contestant, workload) as service:
        warm_up(workload, service, seconds=1)
        peak = warm_up(workload, service, seconds=3).requests_per_s
        log = WORK / "logs" / f"{workload.name}-{contestant.name}.log"
        loads = tuple(
            _swap_at(name, rate, workload, service, log, swaps=swaps, workers=workers)
            for name, rate in (("full", float("inf")), (f"{_SHARE:.0%}", _SHARE * peak))
        )
    return Swaps(loads, workers)


def _that_logs(contestant: Contestant) -> Contestant:
    """Return the contestant with its log of versions turned on."""
    command = contestant.command
    return replace(
        contestant,
        name=f"{contestant.name}-swap",
        command=lambda *given: [{"warning": "info"}.get(word, word) for word in command(*given)],
    )


def _swap_at(
    name: str, rate: float, workload: Workload, service: Service, log: Path, *, swaps: int, workers: int
) -> Swapped:
    publisher = _Publisher(workload, log, swaps=swaps, workers=workers)
    trace = Trace()
    memory_before = service.tree.proportional_mb()
    began = time.perf_counter()
    thread = threading.Thread(target=publisher.run)
    thread.start()
    load = drive_at(
        (HOST, service.port),
        [file.read_bytes() for file in workload.requests],
        rate=rate,
        connections=workload.main_connections,
        seconds=_QUIET_S + swaps * (_BETWEEN_S + 2.0),
        trace=trace,
    )
    publisher.stop.set()
    thread.join()
    if not publisher.pickup_s:
        raise LoadFailed("no version was taken up while the load lasted")
    at, latencies = np.frombuffer(trace.answered_at), np.frombuffer(trace.latencies) * 1e3
    before = (at > began + 0.5) & (at < began + _QUIET_S)
    loading = np.zeros(len(at), bool)
    for begin, end in publisher.loads:
        # An answer counts if it was due, or came, while a worker was loading.
        loading |= (at >= begin) & (at - latencies / 1e3 <= end)
    return Swapped(
        name=name,
        load=load,
        p99_before_ms=float(np.percentile(latencies[before], 99)),
        p99_loading_ms=float(np.percentile(latencies[loading], 99)),
        answers_loading=int(loading.sum()),
        pickup_s=tuple(publisher.pickup_s),
        load_s=float(np.median([end - begin for begin, end in publisher.loads])),
        memory_mb=(memory_before, service.tree.proportional_mb()),
    )


class _Publisher:
    """Publishes one version after another, each when all workers serve the previous one."""

    def __init__(self, workload: Workload, log: Path, *, swaps: int, workers: int) -> None:
        self.stop = threading.Event()
        self.pickup_s: list[float] = []
        self.loads: list[tuple[float, float]] = []
        self._workload = workload
        self._log = log
        self._swaps = swaps
        self._workers = workers

    def run(self) -> None:
        self.stop.wait(_QUIET_S)
        # The log has wall-clock times.
        offset = time.perf_counter() - time.time()
        home = self._workload.bundle.parent
        for _ in range(self._swaps):
            version = max(int(entry.name) for entry in home.iterdir() if entry.name.isdecimal()) + 1
            published = self._publish(home, version)
            lines = self._wait_for(version)
            if not lines:
                return
            ends = [datetime.fromisoformat(line["timestamp"]).timestamp() + offset for line in lines]
            self.loads += [(end - line["load_seconds"], end) for end, line in zip(ends, lines, strict=True)]
            self.pickup_s.append(max(ends) - published)
            self.stop.wait(_BETWEEN_S)

    def _publish(self, home: Path, version: int) -> float:
        building = home / ".building"
        shutil.copytree(self._workload.bundle, building)
        manifest = json.loads((building / MANIFEST).read_bytes())
        (building / MANIFEST).write_text(json.dumps({**manifest, "version": version}), encoding="utf-8")
        building.rename(home / str(version))
        return time.perf_counter()

    def _wait_for(self, version: int) -> list[dict[str, Any]]:
        """Return each worker's line about the version, none if they do not arrive in time."""
        deadline = time.monotonic() + _PICKUP_S
        while time.monotonic() < deadline and not self.stop.wait(0.05):
            lines = [
                json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines() if _is_of_version(line)
            ]
            found = [line for line in lines if line.get("event") == "model live" and line["version"] == version]
            if len(found) == self._workers:
                return found
        return []


def _is_of_version(line: str) -> bool:
    return line.startswith("{") and line.endswith("}") and "model live" in line
