"""One sample: the loads of one start of a contestant, and their order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness.errors import LoadFailed
from benchmarks.harness.request import Body
from benchmarks.harness.service import HOST, Service, ask
from benchmarks.harness.workload import Workload
from benchmarks.harness.wrk import Load, drive
from benchmarks.serving.results import Sample


def take_sample(
    workload: Workload, service: Service, *, number: int, seconds: float, idle_s: float | None, bodies: bool
) -> Sample:
    """Measure a service that has just started; with `bodies`, also raw bodies and batches. Raises LoadFailed."""
    warm_up(workload, service, seconds=max(1, seconds / 4))
    loads = tuple(_loads(workload, service, seconds=seconds, bodies=bodies))
    memory_mb = service.tree.proportional_mb()
    # Last, because after the first answer other workers may still be starting.
    idle = None if idle_s is None else service.tree.idle_cpu_percent(idle_s)
    return Sample(
        round=number + 1,
        start_s=service.start_s,
        idle_cpu_percent=idle,
        memory_mb=memory_mb,
        processes=len(service.tree.pids()),
        labels=service.labels,
        loads=loads,
    )


def warm_up(workload: Workload, service: Service, *, seconds: float) -> Load:
    """Load at the main number of connections, so that every batch size has run once before the measurement."""
    return _drive(service, workload.requests, workload.main_connections, seconds=seconds)


def _loads(workload: Workload, service: Service, *, seconds: float, bodies: bool) -> Iterator[Load]:
    """Yield the loads; raw bodies and batches directly follow the multipart load that they are compared with."""
    for connections in workload.connections:
        lasting = seconds if connections == 1 else seconds * workload.patience
        yield _drive(service, workload.requests, connections, seconds=lasting)
        if bodies and connections == workload.main_connections:
            yield _drive(service, workload.raw_requests, connections, seconds=lasting, body="raw")
            for batch_connections in workload.batch_connections:
                yield _drive(service, workload.batch_requests, batch_connections, seconds=seconds, body="batch")


def _drive(
    service: Service, requests: Sequence[Path], connections: int, *, seconds: float, body: Body = "multipart"
) -> Load:
    if body != "multipart":
        _check(service, requests[0], body)
    return drive(f"http://{HOST}:{service.port}/predict", requests, connections=connections, seconds=seconds, body=body)


def _check(service: Service, request: Path, body: Body) -> None:
    """Raise LoadFailed unless every picture is answered: a batch is 200 even if some of its pictures fail."""
    status, answer = ask(service.port, request.read_bytes())
    if status != 200 or b'"error"' in answer:
        raise LoadFailed(f"the {body} body is answered {status} {answer[:200]!r}")
