"""Measure the cost of metrics: the service with and without them, in turns, at a load that both can serve."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.harness.contestant import Contestant, ours
from benchmarks.harness.service import running
from benchmarks.harness.workload import Workload
from benchmarks.serving.sampling import warm_up


@dataclass(frozen=True)
class OverheadRound:
    """Requests a second with and without metrics, one right after the other."""

    counted: float
    uncounted: float

    @property
    def cost(self) -> float:
        """The share of the throughput that metrics take."""
        return 1 - self.counted / self.uncounted


def measure_metrics_overhead(workload: Workload, *, workers: int, rounds: int, seconds: float) -> list[OverheadRound]:
    """Load both services, which run side by side, in turns. Raises a BenchmarkError."""
    counted = ours("openvino", workers=workers)
    found = []
    with ExitStack() as stack:
        services = [stack.enter_context(running(each, workload)) for each in (counted, _uncounted(counted))]
        for service in services:
            warm_up(workload, service, seconds=2)
        for number in range(rounds):
            order = services if number % 2 else services[::-1]
            rates = {id(service): warm_up(workload, service, seconds=seconds).requests_per_s for service in order}
            found.append(OverheadRound(*(rates[id(service)] for service in services)))
            print(
                f"{found[-1].counted:,.0f}/s counted, {found[-1].uncounted:,.0f}/s not: {found[-1].cost:+.1%}",
                flush=True,
            )
    return found


def metrics_overhead_line(rounds: Sequence[OverheadRound]) -> str:
    costs = sorted(each.cost for each in rounds)
    spread = f"median of {len(costs)}: {costs[0]:.1%} to {costs[-1]:.1%}"
    return f"Metrics take {median(costs):.1%} of the throughput ({spread})."


def _uncounted(contestant: Contestant) -> Contestant:
    command = contestant.command
    return replace(
        contestant,
        name=f"{contestant.name}-uncounted",
        command=lambda *given: ["benchmarks.serving.uncounted" if word == "app" else word for word in command(*given)],
    )
