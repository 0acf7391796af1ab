"""Measure `predict FOLDER --url`: its pictures/s beside those of wrk, which posts batches of the same pictures.

The service is the same, and the command sends the same kind of request, so the rest is what the command itself costs:
reading files, writing requests, reading answers, printing. A command over one picture shows how long it takes to start.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness.contestant import ours
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.request import BATCH_PICTURES
from benchmarks.harness.service import HOST, running
from benchmarks.harness.table import number, percent, table
from benchmarks.harness.workload import Workload
from benchmarks.harness.wrk import drive
from benchmarks.serving.bulk import linked

_AT_ONCE = 4
"""The command's own number of concurrent requests."""


@dataclass
class ByUrl:
    """The rounds: pictures/s of wrk and seconds of the command, over `files` and over one."""

    workload: str
    files: int
    wrk: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)

    def markdown(self) -> str:
        whole = [self.files / seconds for seconds in self.seconds]
        started = [self.files / (seconds - start) for seconds, start in zip(self.seconds, self.start_s, strict=True)]
        by_wrk = f"wrk, {BATCH_PICTURES} pictures a request, {_AT_ONCE} connections"
        rows = [
            [by_wrk, number(statistics.median(self.wrk)), ""],
            ["the whole command", number(statistics.median(whole)), _share(whole, self.wrk)],
            ["without its start", number(statistics.median(started)), _share(started, self.wrk)],
        ]
        start = f"{statistics.median(self.start_s):.2f} s"
        said = (
            f"{self.workload}, {self.files:,} files, {len(self.wrk)} rounds; a command over one picture takes {start}."
        )
        return f"{said}\n\n{table(['', 'pictures/s', 'of wrk'], rows)}"


def measure_by_url(workload: Workload, pictures: Sequence[Path], *, files: int, rounds: int, seconds: float) -> ByUrl:
    """Load one service by wrk and by the command in turns. Raises a BenchmarkError."""
    found = ByUrl(f"{workload.name}, {workload.describe()}", files)
    folder = linked(pictures, files)
    with running(ours("openvino", workers=2), workload) as service:
        url = f"http://{HOST}:{service.port}"
        _seconds_of([str(folder)], url)
        for _ in range(rounds):
            requests_per_s = drive(url, workload.batch_requests, connections=_AT_ONCE, seconds=seconds).requests_per_s
            found.wrk.append(BATCH_PICTURES * requests_per_s)
            found.seconds.append(_seconds_of([str(folder)], url))
            found.start_s.append(_seconds_of([str(pictures[0])], url))
            print(f"wrk {found.wrk[-1]:,.0f}/s; {found.seconds[-1]:.2f} s, start {found.start_s[-1]:.2f} s", flush=True)
    return found


def _seconds_of(arguments: Sequence[str], url: str) -> float:
    command = [sys.executable, "-m", "app", "predict", *arguments, "--url", url, "--output", "csv"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"predict --url ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - began


def _share(ours_per_s: Sequence[float], wrk_per_s: Sequence[float]) -> str:
    shares = sorted(one / other for one, other in zip(ours_per_s, wrk_per_s, strict=True))
    return f"{percent(statistics.median(shares))} ({percent(shares[0])}–{percent(shares[-1])})"
