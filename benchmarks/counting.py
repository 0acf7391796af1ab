"""What counting costs: the service beside itself without it, in turns, at the load that both can bear."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.contestant import Contestant, ours
from benchmarks.sampling import warm_up
from benchmarks.service import running
from benchmarks.workload import Workload


@dataclass(frozen=True)
class CountingRound:
    """Requests a second, one right after the other."""

    counted: float
    uncounted: float

    @property
    def cost(self) -> float:
        """The share of the throughput that counting takes."""
        return 1 - self.counted / self.uncounted


def measure_counting(workload: Workload, *, workers: int, rounds: int, seconds: float) -> list[CountingRound]:
    """Drive both services, which run side by side, in turns. Raises a BenchmarkError."""
    counting = ours("openvino", workers=workers)
    found = []
    with ExitStack() as stack:
        services = [stack.enter_context(running(each, workload)) for each in (counting, _uncounted(counting))]
        for service in services:
            warm_up(workload, service, seconds=2)
        for number in range(rounds):
            order = services if number % 2 else services[::-1]
            rates = {id(service): warm_up(workload, service, seconds=seconds).requests_per_s for service in order}
            found.append(CountingRound(*(rates[id(service)] for service in services)))
            print(
                f"{found[-1].counted:,.0f}/s counted, {found[-1].uncounted:,.0f}/s not: {found[-1].cost:+.1%}",
                flush=True,
            )
    return found


def counting_line(rounds: Sequence[CountingRound]) -> str:
    costs = sorted(each.cost for each in rounds)
    spread = f"median of {len(costs)}: {costs[0]:.1%} to {costs[-1]:.1%}"
    return f"Counting takes {median(costs):.1%} of the throughput ({spread})."


def _uncounted(contestant: Contestant) -> Contestant:
    command = contestant.command
    return replace(
        contestant,
        name=f"{contestant.name}-uncounted",
        command=lambda *given: ["benchmarks.uncounted" if word == "app" else word for word in command(*given)],
    )
