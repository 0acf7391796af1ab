"""Measure requests/s and p99 against connections, bytes, model, batch size and workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.harness.contestant import Contestant, bare, ours
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import Machine
from benchmarks.harness.request import multipart_post
from benchmarks.harness.service import HOST, running
from benchmarks.harness.sized_pictures import sized_picture
from benchmarks.harness.workload import WORK, Workload, write_requests
from benchmarks.harness.wrk import Load, drive
from benchmarks.serving.sampling import warm_up

CONNECTIONS = (1, 4, 16, 64, 256, 1024)
SIZES_BYTES = (1_000, 10_000, 100_000, 1_000_000, 5_000_000)
BATCH_SIZES = (1, 4, 16, 64)
WORKERS = (1, 2)
_CONNECTIONS_OF_LARGE = 16  # a large picture keeps a core busy for milliseconds: more would only wait


@dataclass(frozen=True)
class ScalingPoint:
    """`x` is the varied quantity, `label` its name in the table."""

    x: float
    label: str
    contestant: str
    load: Load


@dataclass
class Sweep:
    name: str
    axis: str
    about: str
    points: list[ScalingPoint] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass
class Scaling:
    command: str
    machine: Machine
    seconds: float
    sweeps: list[Sweep] = field(default_factory=list)


def sweeps(
    mnist: Workload, models: Sequence[tuple[str, Workload]], photos: Sequence[bytes], *, seconds: float
) -> Iterator[Sweep]:
    """Run the sweeps one after another; `models` are the networks by name, the smallest first."""
    yield _connections(mnist, seconds)
    yield _picture_bytes(mnist, photos, seconds)
    yield _model_size(models, seconds)
    by_batch = [(size, _batching(size)) for size in BATCH_SIZES]
    yield _starts("batch", "IMAGECLASS_MAX_BATCH_SIZE", mnist, by_batch, seconds)
    by_workers = [(workers, ours("openvino", workers=workers)) for workers in WORKERS]
    yield _starts("workers", "workers", mnist, by_workers, seconds)


def _connections(mnist: Workload, seconds: float) -> Sweep:
    sweep = Sweep("connections", "connections", f"MNIST, {mnist.describe()}")
    for contestant in (_ours(), bare(workers=2)):
        points = [(connections, str(connections), mnist, connections) for connections in CONNECTIONS]
        _drive_all(sweep, contestant, points, seconds)
    return sweep


def _picture_bytes(mnist: Workload, photos: Sequence[bytes], seconds: float) -> Sweep:
    about = f"MNIST, one photo (JPEG) of each size, {_CONNECTIONS_OF_LARGE} connections"
    sweep = Sweep("bytes", "picture, KB", about)
    points = []
    for size in SIZES_BYTES:
        picture = sized_picture(photos, size)
        requests = write_requests(WORK / "requests" / "scaling" / str(size), [multipart_post(picture)])
        workload = replace(mnist, pictures=(picture,), requests=requests)
        points.append((len(picture) / 1e3, f"{len(picture) / 1e3:,.1f}", workload, _CONNECTIONS_OF_LARGE))
    for contestant in (_ours(), bare(workers=2)):
        _drive_all(sweep, contestant, points, seconds)
    return sweep


def _model_size(models: Sequence[tuple[str, Workload]], seconds: float) -> Sweep:
    sweep = Sweep("model", "weights, MB", "each network at its own main number of connections")
    for name, workload in models:
        weights = sum(file.stat().st_size for file in workload.bundle.glob("variables/*")) / 1e6
        label = f"{name}, {weights:,.1f} MB, {workload.main_connections} connections"
        _drive_all(sweep, _ours(), [(weights, label, workload, workload.main_connections)], seconds)
    return sweep


def _starts(
    name: str, axis: str, workload: Workload, contestants: Sequence[tuple[int, Contestant]], seconds: float
) -> Sweep:
    sweep = Sweep(name, axis, f"MNIST, {workload.main_connections} connections")
    for value, contestant in contestants:
        _drive_all(sweep, contestant, [(value, str(value), workload, workload.main_connections)], seconds)
    return sweep


def _ours() -> Contestant:
    return ours("openvino", workers=2)


def _batching(size: int) -> Contestant:
    contestant = _ours()
    return replace(contestant, variables={**contestant.variables, "IMAGECLASS_MAX_BATCH_SIZE": str(size)})


def _drive_all(
    sweep: Sweep, contestant: Contestant, points: Sequence[tuple[float, str, Workload, int]], seconds: float
) -> None:
    """Measure points with one start; for a contestant that fails, keep the reason and the points so far."""
    try:
        with running(contestant, points[0][2]) as service:
            warm_up(points[0][2], service, seconds=1)
            for x, label, workload, connections in points:
                load = drive(
                    f"http://{HOST}:{service.port}/predict",
                    workload.requests,
                    connections=connections,
                    seconds=seconds * workload.patience,
                )
                sweep.points.append(ScalingPoint(x, label, contestant.name, load))
                print(
                    f"  {sweep.name:<12} {label:<36} {contestant.name:<22}{load.requests_per_s:>10,.1f}/s  "
                    f"p99 {load.p99_ms:.2f} ms" + (f"  {load.not_ok} not 200" if load.not_ok else ""),
                    flush=True,
                )
    except BenchmarkError as exc:
        sweep.failures.append(f"{contestant.name}: {exc}")
        print(f"  {sweep.name:<12} {contestant.name} {exc}", flush=True)
