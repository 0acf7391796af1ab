"""Load a contestant in an open loop, at fractions of the rate that it has just reached in the closed loop."""

from collections.abc import Sequence

from benchmarks.harness.contestant import Contestant
from benchmarks.harness.errors import LoadFailed
from benchmarks.harness.open_loop import OpenLoop, drive_at
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.workload import Workload
from benchmarks.serving.results import FixedRate
from benchmarks.serving.sampling import warm_up

BARE = "bare-2"
_MOST_OF_GENERATOR = 0.9


def generator_limit(bare: Contestant, workload: Workload, *, seconds: float) -> OpenLoop:
    """Load the bare application as fast as it and the generator allow. Raises a BenchmarkError."""
    with running(bare, workload) as service:
        return _at_rate(workload, service, rate=float("inf"), seconds=seconds)


def drive_shares(
    contestant: Contestant, workload: Workload, shares: Sequence[float], *, limit: OpenLoop | None, seconds: float
) -> list[FixedRate]:
    """Load a contestant at each share of its peak, which is measured again: the machine may have slowed down.

    No rate is above 90 % of the generator's limit. Raises a BenchmarkError.
    """
    cap = limit.answered_per_s * _MOST_OF_GENERATOR if limit else float("inf")
    found = []
    with running(contestant, workload) as service:
        warm_up(workload, service, seconds=1)
        peak = warm_up(workload, service, seconds=max(2, seconds / 2)).requests_per_s
        if not peak:
            raise LoadFailed("it answered nothing in the closed loop before")
        for share in shares:
            rate = min(cap, share * peak)
            result = _at_rate(workload, service, rate=rate, seconds=seconds)
            found.append(FixedRate(share, rate < share * peak, result))
            print(
                f"  {contestant.name:<26}{share:>5.0%} {rate:>9,.0f}/s  p50 {result.p50_ms:.2f}  "
                f"p99 {result.p99_ms:.2f}  p99.9 {result.p999_ms:.2f} ms",
                flush=True,
            )
    return found


def _at_rate(workload: Workload, service: Service, *, rate: float, seconds: float) -> OpenLoop:
    try:
        return drive_at(
            (HOST, service.port),
            [file.read_bytes() for file in workload.requests],
            rate=rate,
            connections=workload.main_connections,
            seconds=seconds,
        )
    except OSError as exc:
        raise LoadFailed(f"the open loop lost the service: {exc}") from exc
