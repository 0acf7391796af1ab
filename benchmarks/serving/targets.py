"""This project's targets, and whether a run reached them.

A figure that compares two contestants is a ratio within each round, and the median of the rounds counts: changes of the
machine's speed between rounds affect both.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.harness.contestant import BASELINE, NO_BF16
from benchmarks.harness.open_loop import OpenLoop
from benchmarks.harness.request import BATCH_PICTURES
from benchmarks.harness.wrk import Load
from benchmarks.serving.results import ByRound, FixedRate, Results, Sample, WorkloadResult, over

OURS = "ours-openvino-f32-2"
_NOT_RUN = "not in this run"
_SHARE = 0.8
_SOAK_REQUESTS = 1_000_000
_FLAT_MB = 5.0


@dataclass(frozen=True)
class Target:
    """`figures` holds one for each round; if empty, `missing` says why it was not measured."""

    what: str
    aim: float
    unit: str
    figures: tuple[float, ...]
    at_most: bool = False
    missing: str = _NOT_RUN

    @property
    def figure(self) -> float | None:
        return median(self.figures) if self.figures else None

    @property
    def reached(self) -> bool | None:
        """Return whether it was reached, None if it was not measured."""
        if self.figure is None:
            return None
        return self.figure <= self.aim if self.at_most else self.figure >= self.aim


def targets(results: Results) -> list[Target]:
    """Return all of them, in the order of the table."""
    mnist = results.workload("mnist") or _empty("mnist", (1, 64, 256))
    mobilenet = results.workload("mobilenet") or _empty("mobilenet", (1, 32))
    on_mnist = [*_throughput(mnist), *_latency(mnist), *_bodies(mnist)]
    return [
        *_explained(on_mnist, mnist),
        *_explained(_second_model(mobilenet), mobilenet),
        *_explained(_footprint(mnist, results), mnist),
        *_other_engines(mnist, bf16=results.machine.bf16),
    ]


def _empty(name: str, connections: tuple[int, ...]) -> WorkloadResult:
    return WorkloadResult(name, "", connections, connections[1], (), [], [])


def _explained(found: Sequence[Target], workload: WorkloadResult) -> list[Target]:
    """Name the failure of this project's service if it is the reason for a missing figure."""
    service = workload.service(OURS)
    if service is None or service.failure is None:
        return list(found)
    reason = service.failure
    return [replace(target, missing=reason) if target.missing == _NOT_RUN else target for target in found]


def _throughput(mnist: WorkloadResult) -> list[Target]:
    speed = _speed(mnist, OURS, 64)
    return [
        _of(f"MNIST, 64 connections: requests/s over {BASELINE}", 10, "×", over(speed, _speed(mnist, BASELINE, 64))),
        _of("… over the best peer", 8, "×", over(speed, mnist.best_peer(64))),
        _of("… of the limit", 0.9, "%", over(speed, mnist.limit(64, "f32"))),
        _of("256 connections: requests/s of those at 64", 0.95, "%", over(_speed(mnist, OURS, 256), speed)),
    ]


def _latency(mnist: WorkloadResult) -> list[Target]:
    ours = mnist.service(OURS)
    p50, p99 = (_figure(mnist, OURS, 256, figure) for figure in (_p50_ms, _p99_ms))
    at_share = [fixed for fixed in ours.fixed_rates if fixed.share == _SHARE] if ours else []
    return [
        *(_over_bare(mnist, workers) for workers in (1, 2)),
        _of("256 connections: p99 over p50", 3, "×", over(p99, p50), at_most=True),
        _at_rate("Open loop at 80 % of the peak: p99", 10, at_share, lambda result: result.p99_ms),
        _at_rate("… p99.9", 30, at_share, lambda result: result.p999_ms),
    ]


def _bodies(mnist: WorkloadResult) -> list[Target]:
    ours = mnist.service(OURS)
    raw = ours.by_round(64, _requests_per_s, "raw") if ours else {}
    pictures: ByRound = {}
    for connections in mnist.batch_connections:
        for number, speed in (ours.by_round(connections, _requests_per_s, "batch") if ours else {}).items():
            pictures[number] = max(pictures.get(number, 0.0), BATCH_PICTURES * speed)
    return [
        _of("Raw body: requests/s over multipart", 1, "×", over(raw, _speed(mnist, OURS, 64))),
        _of(
            f"/predict/batch of {BATCH_PICTURES}: pictures/s of those in process",
            0.95,
            "%",
            over(pictures, mnist.in_process("f32")),
        ),
    ]


def _second_model(mobilenet: WorkloadResult) -> list[Target]:
    speed = _speed(mobilenet, OURS, 32)
    baseline = _speed(mobilenet, BASELINE, 32)
    return [
        _of(f"MobileNetV2, 32 connections: requests/s over {BASELINE}", 4, "×", over(speed, baseline)),
        _of("… over the best peer", 2.5, "×", over(speed, mobilenet.best_peer(32))),
        _of("… of its pictures/s in process", 0.9, "%", over(speed, mobilenet.in_process("f32"))),
    ]


def _footprint(mnist: WorkloadResult, results: Results) -> list[Target]:
    soak = results.soak
    long_enough = soak is not None and soak.requests >= _SOAK_REQUESTS
    return [
        _of("Memory (PSS), 2 workers", 300, "MB", _samples(mnist, lambda sample: sample.memory_mb), at_most=True),
        Target(
            f"Memory growth over {_SOAK_REQUESTS:,} requests",
            _FLAT_MB,
            "MB",
            (soak.growth_mb,) if soak and long_enough else (),
            at_most=True,
            missing=f"the soak had only {soak.requests:,}" if soak else "python -m benchmarks soak was not run",
        ),
        _of("Start to the first answer", 1.2, "s", _samples(mnist, lambda sample: sample.start_s), at_most=True),
        _of("Idle, of one core", 0.005, "%", _samples(mnist, _idle_share), at_most=True),
    ]


def _other_engines(mnist: WorkloadResult, *, bf16: bool) -> list[Target]:
    baseline = _speed(mnist, BASELINE, 64)
    on_tensorflow = _speed(mnist, "ours-tensorflow-f32-2", 64)
    auto = _speed(mnist, "ours-openvino-auto-2", 64)
    reason = _NOT_RUN if bf16 else NO_BF16
    return [
        _of(f"On TensorFlow, 64 connections: requests/s over {BASELINE}", 4, "×", over(on_tensorflow, baseline)),
        _of(f"precision=auto: requests/s over {BASELINE}", 12, "×", over(auto, baseline), missing=reason),
        _of("… of its limit", 0.9, "%", over(auto, mnist.limit(64, "auto")), missing=reason),
    ]


def _over_bare(mnist: WorkloadResult, workers: int) -> Target:
    mine = _figure(mnist, f"ours-openvino-f32-{workers}", 1, _p50_ms)
    bare = _figure(mnist, f"bare-{workers}", 1, _p50_ms)
    apart = {number: mine[number] - bare[number] for number in mine.keys() & bare.keys()}
    return _of(f"1 connection: p50 over bare-{workers}", 0.35, "ms", apart, at_most=True)


def _at_rate(what: str, aim: float, found: Sequence[FixedRate], figure: Callable[[OpenLoop], float]) -> Target:
    capped = any(fixed.capped for fixed in found)
    figures = () if capped else tuple(figure(fixed.result) for fixed in found)
    missing = "the generator cannot send this many" if capped else _NOT_RUN
    return Target(what, aim, "ms", figures, at_most=True, missing=missing)


def _of(
    what: str, aim: float, unit: str, figures: ByRound, *, at_most: bool = False, missing: str = _NOT_RUN
) -> Target:
    return Target(what, aim, unit, tuple(figures.values()), at_most, missing)


def _speed(workload: WorkloadResult, name: str, connections: int) -> ByRound:
    return _figure(workload, name, connections, _requests_per_s)


def _figure(workload: WorkloadResult, name: str, connections: int, figure: Callable[[Load], float]) -> ByRound:
    service = workload.service(name)
    return service.by_round(connections, figure) if service else {}


def _samples(workload: WorkloadResult, figure: Callable[[Sample], float | None]) -> ByRound:
    service = workload.service(OURS)
    found: Iterable[tuple[int, float | None]] = (
        ((sample.round, figure(sample)) for sample in service.samples) if service else ()
    )
    return {number: value for number, value in found if value is not None}


def _idle_share(sample: Sample) -> float | None:
    return None if sample.idle_cpu_percent is None else sample.idle_cpu_percent / 100


def _requests_per_s(load: Load) -> float:
    return load.requests_per_s


def _p50_ms(load: Load) -> float:
    return load.p50_ms


def _p99_ms(load: Load) -> float:
    return load.p99_ms
