"""One run: every contestant in every round, in a rotating order; results are saved after every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.contestant import BASELINE, Contestant
from benchmarks.harness.errors import BenchmarkError, NotBuilt
from benchmarks.harness.service import running
from benchmarks.harness.workload import Workload
from benchmarks.serving.fixed_rates import BARE, drive_shares, generator_limit
from benchmarks.serving.in_process import Pipeline, PipelineSpeed, measure_pipeline, splits
from benchmarks.serving.report import markdown
from benchmarks.serving.results import PipelineResult, Results, ServiceResult, WorkloadResult, middle
from benchmarks.serving.sampling import take_sample
from benchmarks.serving.schedule import order

_MOST_PIPELINE_S = 2.0
_SPLITS_AFTER_FIRST_ROUND = 2


@dataclass(frozen=True)
class Plan:
    """`shares` are the rates of the open loop, as shares of a contestant's rate in the closed loop."""

    contestants: Sequence[Contestant]
    pipelines: Sequence[Pipeline]
    rounds: int
    seconds: float
    idle_s: float
    shares: Sequence[float]
    short: bool
    out: Path


class Campaign:
    """Runs a plan and writes results.json and results.md into `plan.out` after every step."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._plan = plan
        self._results = results

    def run(self, workloads: Sequence[Workload]) -> None:
        self._plan.out.mkdir(parents=True, exist_ok=True)
        for workload in workloads:
            self._run_workload(workload)
        self._results.finished = True
        self._write()

    def _run_workload(self, workload: Workload) -> None:
        plan = self._plan
        services = [
            ServiceResult(each.name, each.group, each.about, each.precision, failure=each.reason_to_skip())
            for each in plan.contestants
        ]
        pipelines = [
            PipelineResult(each.name, each.precision, failure=each.reason_to_skip()) for each in plan.pipelines
        ]
        result = WorkloadResult(
            name=workload.name,
            pictures=workload.describe(),
            connections=workload.connections,
            main_connections=workload.main_connections,
            batch_connections=workload.batch_connections,
            services=services,
            pipelines=pipelines,
        )
        self._results.workloads.append(result)
        self._prepare(services)
        for number in range(plan.rounds):
            print(f"{workload.name}, round {number + 1} of {plan.rounds}", flush=True)
            for turn in order(plan.contestants, plan.pipelines, number=number, rounds=plan.rounds):
                if isinstance(turn, Pipeline):
                    self._in_process(workload, turn, result.pipeline(turn.name), number)
                else:
                    self._closed_loop(workload, turn, result.service(turn.name), number)
        self._open_loop(workload, result)

    def _prepare(self, services: Sequence[ServiceResult]) -> None:
        """Build every environment before anything is measured."""
        for contestant, service in zip(self._plan.contestants, services, strict=True):
            if service.failure is None:
                try:
                    contestant.prepare()
                except NotBuilt as exc:
                    service.failure = str(exc)
        self._write()

    def _in_process(self, workload: Workload, pipeline: Pipeline, result: PipelineResult | None, number: int) -> None:
        """Try every split in the first round, and only the best of them in the others."""
        if result is None or result.failure is not None:
            return
        tried = result.fastest_splits(_SPLITS_AFTER_FIRST_ROUND) or splits(workload, short=self._plan.short)
        for split in tried:
            try:
                seconds = min(self._plan.seconds, _MOST_PIPELINE_S)
                speed = measure_pipeline(pipeline, workload.bundle, workload.pictures, split, seconds=seconds)
            except BenchmarkError as exc:
                result.failure = str(exc)
                break
            result.speeds.append(PipelineSpeed(number + 1, split, speed))
            print(f"  {pipeline.name:<26}{speed:>10,.0f}/s  ({split})", flush=True)
        self._write()

    def _closed_loop(
        self, workload: Workload, contestant: Contestant, result: ServiceResult | None, number: int
    ) -> None:
        if result is None or result.failure is not None:
            return
        try:
            with running(contestant, workload) as service:
                sample = take_sample(
                    workload,
                    service,
                    number=number,
                    seconds=self._plan.seconds,
                    idle_s=self._plan.idle_s if number == 0 else None,
                    bodies=contestant.takes_bodies,
                )
        except BenchmarkError as exc:
            result.failure = f"round {number + 1}: {exc}"
            print(f"  {contestant.name:<26} {exc}", flush=True)
        else:
            result.samples.append(sample)
            speeds = "".join(
                f"{load.requests_per_s:>10,.0f}/s{'' if load.body == 'multipart' else ' ' + load.body}"
                for load in sample.loads
            )
            refused = sum(load.not_ok for load in sample.loads)
            remark = f"  {refused} not 200" if refused else ""
            print(f"  {contestant.name:<26}{speeds}  start {sample.start_s:.1f} s{remark}", flush=True)
        self._write()

    def _open_loop(self, workload: Workload, result: WorkloadResult) -> None:
        """Load the bare application first: this measures how many requests/s the generator can send."""
        chosen = {BARE, BASELINE, *(each.name for each in self._plan.contestants if _is_main(each))}
        if peer := _best_peer(result):
            chosen.add(peer)
        contestants = {each.name: each for each in self._plan.contestants if each.name in chosen}
        print(f"{workload.name}, open loop", flush=True)
        if bare := contestants.get(BARE):
            try:
                result.generator_limit = generator_limit(bare, workload, seconds=self._plan.seconds)
            except BenchmarkError as exc:
                print(f"  the generator's limit is not known: {exc}", flush=True)
        for name, contestant in contestants.items():
            service = result.service(name)
            if service is None or not service.samples:
                continue
            try:
                service.fixed_rates += drive_shares(
                    contestant, workload, self._plan.shares, limit=result.generator_limit, seconds=self._plan.seconds
                )
            except BenchmarkError as exc:
                service.failure = f"open loop: {exc}"
            self._write()

    def _write(self) -> None:
        self._results.write(self._plan.out / "results.json")
        (self._plan.out / "results.md").write_text(markdown(self._results), encoding="utf-8")


def _is_main(contestant: Contestant) -> bool:
    return contestant.group == "ours" and contestant.takes_bodies


def _best_peer(result: WorkloadResult) -> str | None:
    speeds = {
        service.name: middle(service.by_round(result.main_connections, lambda load: load.requests_per_s).values())
        for service in result.services
        if service.group == "peer"
    }
    return max(speeds, key=lambda name: speeds[name] or 0.0, default=None)
