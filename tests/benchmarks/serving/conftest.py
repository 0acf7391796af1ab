"""A run of two rounds in which nothing was started: the second round's machine is half as fast as the first's."""

import pytest

from benchmarks.harness.machine import Machine
from benchmarks.harness.open_loop import OpenLoop
from benchmarks.harness.request import Body
from benchmarks.harness.wrk import Load
from benchmarks.serving.in_process import PipelineSpeed, Split
from benchmarks.serving.results import FixedRate, PipelineResult, Results, Sample, ServiceResult, WorkloadResult

_SPEED_OF_ROUND = {1: 1.0, 2: 0.5}


def _load(connections: int, requests_per_s: float, body: Body = "multipart", *, p50_ms: float = 1.0) -> Load:
    return Load(
        connections=connections,
        requests=round(requests_per_s),
        requests_per_s=requests_per_s,
        p50_ms=p50_ms,
        p90_ms=1.5,
        p99_ms=2.0,
        p999_ms=4.0,
        not_ok=0,
        body=body,
    )


def _service(name: str, group: str, loads: list[tuple[int, float, Body]], *, p50_ms: float) -> ServiceResult:
    samples = [
        Sample(
            round=number,
            start_s=1.0,
            idle_cpu_percent=0.2 if number == 1 else None,
            memory_mb=200.0,
            processes=3,
            labels=("7",),
            loads=tuple(_load(connections, pace * speed, body, p50_ms=p50_ms) for connections, speed, body in loads),
        )
        for number, pace in _SPEED_OF_ROUND.items()
    ]
    return ServiceResult(name, group, f"about {name}", "f32", samples)


@pytest.fixture
def results() -> Results:
    machine = Machine(
        cpu="A CPU",
        cores=2,
        bf16=False,
        memory_gb=8.0,
        system="Linux",
        python="3.11",
        wrk="wrk",
        versions={},
        commit="abc",
        date="today",
    )
    ours = _service(
        "ours-openvino-f32-2",
        "ours",
        [
            (1, 1000, "multipart"),
            (64, 6000, "multipart"),
            (64, 6600, "raw"),
            (4, 250, "batch"),
            (8, 300, "batch"),
            (256, 5800, "multipart"),
        ],
        p50_ms=0.5,
    )
    at_rate = OpenLoop(4800, 4800, 1.0, 2.0, 8.0, 40.0, 50.0, 48000, 0, 0, 0.3)
    ours.fixed_rates.append(FixedRate(0.8, capped=False, result=at_rate))
    multipart: list[tuple[int, float, Body]] = [(1, 400, "multipart"), (64, 500, "multipart")]
    services = [
        ours,
        _service("tutorial-2", "tutorial", multipart, p50_ms=2.0),
        _service("litserve", "peer", [(64, 600, "multipart")], p50_ms=3.0),
        _service("bentoml", "peer", [(64, 300, "multipart")], p50_ms=3.0),
        _service("bare-2", "ceiling", [(1, 4000, "multipart"), (64, 20000, "multipart")], p50_ms=0.2),
    ]
    pipeline = PipelineResult("in-process-openvino-f32", "f32")
    for number, pace in _SPEED_OF_ROUND.items():
        pipeline.speeds.append(PipelineSpeed(number, Split(2, 1, 16), 8000 * pace))
        pipeline.speeds.append(PipelineSpeed(number, Split(2, 1, 64), 10000 * pace))
    workload = WorkloadResult("mnist", "64 pictures", (1, 64, 256), 64, (4, 8), services, [pipeline])
    return Results("python -m benchmarks run", machine, 2, 4.0, [workload], finished=True)
