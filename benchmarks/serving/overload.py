"""Measure goodput, latency and memory under overload.

Three loads a round, with the same generator and on one service: as fast as it goes (the peak), 80 % of that, and a
multiple of that, at a fixed rate. There are more connections than the service holds pictures, so that the excess
reaches it instead of waiting here. The load above the peak runs for some seconds before it is measured, so the effect
of a burst, before the service has detected overload, is not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.harness.contestant import Contestant
from benchmarks.harness.open_loop import OpenLoop, drive_at
from benchmarks.harness.service import HOST, Service, running
from benchmarks.harness.table import table
from benchmarks.harness.workload import Workload

_FEW = 64
_MANY = 1500
_UNDER = 0.8


@dataclass(frozen=True)
class OverloadRound:
    times: float
    """The load, in peaks of this round."""
    peak: OpenLoop
    under: OpenLoop
    over: OpenLoop
    memory_before_mb: float
    memory_after_mb: float

    @property
    def goodput_share(self) -> float:
        return self.over.answered_per_s / self.peak.answered_per_s

    @property
    def p50_ratio(self) -> float:
        return self.over.p50_ms / self.under.p50_ms

    @property
    def p99_ratio(self) -> float:
        return self.over.p99_ms / self.under.p99_ms


def overload(
    contestant: Contestant, workload: Workload, *, times: float, rounds: int, seconds: float, settle_s: float
) -> list[OverloadRound]:
    """Load one service with `times` its peak for some rounds. Raises a BenchmarkError."""
    requests = [file.read_bytes() for file in workload.requests]
    found = []
    with running(contestant, workload) as service:
        _drive(service, requests, rate=float("inf"), connections=_FEW, seconds=2)
        for _ in range(rounds):
            peak = _drive(service, requests, rate=float("inf"), connections=_FEW, seconds=seconds)
            under = _drive(service, requests, rate=_UNDER * peak.answered_per_s, connections=_MANY, seconds=seconds)
            rate = times * peak.answered_per_s
            before = service.tree.proportional_mb()
            over = _drive(service, requests, rate=rate, connections=_MANY, seconds=seconds, settle_s=settle_s)
            found.append(OverloadRound(times, peak, under, over, before, service.tree.proportional_mb()))
            print(_line(found[-1]), flush=True)
    return found


def overload_table(rounds: Sequence[OverloadRound]) -> str:
    """Return the medians of the rounds, with the lowest and highest."""
    at = f"at {rounds[0].times:g} ×"
    rows: list[tuple[str, list[float], str]] = [
        (f"goodput {at} the peak, of the peak", [each.goodput_share for each in rounds], "{:.2f}"),
        (f"median of admitted {at}, over that at 80 %", [each.p50_ratio for each in rounds], "{:.2f}"),
        (f"p99 of admitted {at}, over that at 80 %", [each.p99_ratio for each in rounds], "{:.2f}"),
        ("peak, requests/s", [each.peak.answered_per_s for each in rounds], "{:,.0f}"),
        (f"goodput {at}, requests/s", [each.over.answered_per_s for each in rounds], "{:,.0f}"),
        (
            f"rejected {at}, of all",
            [each.over.refused / (each.over.refused + each.over.ok) for each in rounds],
            "{:.2f}",
        ),
        (f"neither 200 nor 503 {at}", [each.over.not_ok - each.over.refused for each in rounds], "{:,.0f}"),
        ("p50 at 80 %, ms", [each.under.p50_ms for each in rounds], "{:.2f}"),
        (f"p50 {at}, ms", [each.over.p50_ms for each in rounds], "{:.2f}"),
        ("p99 at 80 %, ms", [each.under.p99_ms for each in rounds], "{:.2f}"),
        (f"p99 {at}, ms", [each.over.p99_ms for each in rounds], "{:.2f}"),
        (f"generator's share of a core {at}", [each.over.generator_busy for each in rounds], "{:.2f}"),
        ("memory, change, MB", [each.memory_after_mb - each.memory_before_mb for each in rounds], "{:+.1f}"),
    ]
    return table(
        ("", "median", "lowest", "highest"),
        [
            (name, *(text.format(value) for value in (median(values), min(values), max(values))))
            for name, values, text in rows
        ],
    )


def _drive(
    service: Service,
    requests: Sequence[bytes],
    *,
    rate: float,
    connections: int,
    seconds: float,
    settle_s: float = 0.0,
) -> OpenLoop:
    return drive_at(
        (HOST, service.port), requests, rate=rate, connections=connections, seconds=seconds, settle_s=settle_s
    )


def _line(found: OverloadRound) -> str:
    return (
        f"peak {found.peak.answered_per_s:,.0f}/s; at {found.times:g} × {found.over.answered_per_s:,.0f}/s "
        f"({found.goodput_share:.2f}), p50 {found.over.p50_ms:.2f} ms ({found.p50_ratio:.2f} ×), p99 "
        f"{found.over.p99_ms:.2f} ms ({found.p99_ratio:.2f} ×), {found.over.refused:,} rejected"
    )
