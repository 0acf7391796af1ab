"""One run: every contestant in every round, in an order that rotates, and what could be measured kept at every step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestant import Contestant
from benchmarks.errors import BenchmarkError, LoadFailed, NotBuilt
from benchmarks.in_process import Pipeline, measure, splits
from benchmarks.open_loop import OpenLoop, drive_at
from benchmarks.report import markdown
from benchmarks.results import FixedRate, PipelineResult, Results, Sample, ServiceResult, WorkloadResult
from benchmarks.service import HOST, Service, running
from benchmarks.workload import Workload
from benchmarks.wrk import drive

SHARES = (0.5, 0.8, 0.95)
_BARE = "bare-2"
_MOST_OF_GENERATOR = 0.9


@dataclass(frozen=True)
class Plan:
    contestants: Sequence[Contestant]
    pipelines: Sequence[Pipeline]
    rounds: int
    seconds: float
    idle_s: float
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
            workload.name, workload.describe(), workload.connections, workload.main_connections, services, pipelines
        )
        self._results.workloads.append(result)
        self._prepare(services)
        for number in range(plan.rounds):
            print(f"{workload.name}, round {number + 1} of {plan.rounds}", flush=True)
            self._pipelines(workload, pipelines)
            pairs = list(zip(plan.contestants, services, strict=True))
            turn = number * max(1, len(pairs) // plan.rounds) % max(1, len(pairs))
            for contestant, service in pairs[turn:] + pairs[:turn]:
                if service.failure is None:
                    self._closed_loop(workload, contestant, service, number)
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

    def _pipelines(self, workload: Workload, pipelines: Sequence[PipelineResult]) -> None:
        for pipeline, result in zip(self._plan.pipelines, pipelines, strict=True):
            if result.failure is not None:
                continue
            for split in splits(workload, short=self._plan.short):
                try:
                    speed = measure(pipeline, workload, split, seconds=min(self._plan.seconds, 4))
                except BenchmarkError as exc:
                    result.failure = str(exc)
                    break
                result.speeds.append(speed)
                print(f"  {pipeline.name:<26} {speed.pictures_per_s:>9,.0f}/s  ({split})", flush=True)
            self._write()

    def _closed_loop(self, workload: Workload, contestant: Contestant, result: ServiceResult, number: int) -> None:
        try:
            with running(contestant, workload) as service:
                sample = self._sample(workload, service, number)
        except BenchmarkError as exc:
            result.failure = f"round {number + 1}: {exc}"
            print(f"  {contestant.name:<26} {exc}", flush=True)
        else:
            result.samples.append(sample)
            speeds = "".join(f"{load.requests_per_s:>10,.0f}/s" for load in sample.loads)
            refused = sum(load.not_ok for load in sample.loads)
            remark = f"  {refused} not 200" if refused else ""
            print(f"  {contestant.name:<26}{speeds}  start {sample.start_s:.1f} s{remark}", flush=True)
        self._write()

    def _sample(self, workload: Workload, service: Service, number: int) -> Sample:
        idle = service.tree.idle_cpu_percent(self._plan.idle_s)
        self._warm_up(workload, service)
        loads = tuple(
            drive(_url(service), workload.requests, connections=connections, seconds=self._plan.seconds)
            for connections in workload.connections
        )
        return Sample(
            round=number + 1,
            start_s=service.start_s,
            idle_cpu_percent=idle,
            memory_mb=service.tree.proportional_mb(),
            processes=len(service.tree.pids()),
            labels=service.labels,
            loads=loads,
        )

    def _warm_up(self, workload: Workload, service: Service) -> None:
        """Let every batch size be met once before it counts."""
        drive(
            _url(service),
            workload.requests,
            connections=workload.main_connections,
            seconds=max(1, self._plan.seconds / 4),
        )

    def _open_loop(self, workload: Workload, result: WorkloadResult) -> None:
        requests = [file.read_bytes() for file in workload.requests]
        print(f"{workload.name}, open loop", flush=True)
        bare = next((each for each in self._plan.contestants if each.name == _BARE), None)
        if bare is not None:
            try:
                with running(bare, workload) as service:
                    result.generator_limit = self._at_rate(workload, service, requests, float("inf"))
            except BenchmarkError as exc:
                print(f"  the generator's limit is not known: {exc}", flush=True)
        cap = result.generator_limit.answered_per_s * _MOST_OF_GENERATOR if result.generator_limit else float("inf")
        for contestant, service_result in zip(self._plan.contestants, result.services, strict=True):
            peak = service_result.peak()
            if peak is None or (contestant.group == "ceiling" and contestant is not bare):
                continue
            try:
                with running(contestant, workload) as service:
                    self._warm_up(workload, service)
                    for share in SHARES:
                        rate = min(cap, share * peak[0])
                        fixed = FixedRate(
                            share, rate < share * peak[0], self._at_rate(workload, service, requests, rate)
                        )
                        service_result.fixed_rates.append(fixed)
                        found = fixed.result
                        print(
                            f"  {contestant.name:<26}{share:>5.0%} {rate:>9,.0f}/s  p50 {found.p50_ms:.2f}  "
                            f"p99 {found.p99_ms:.2f}  p99.9 {found.p999_ms:.2f} ms",
                            flush=True,
                        )
            except BenchmarkError as exc:
                service_result.failure = f"open loop: {exc}"
            self._write()

    def _at_rate(self, workload: Workload, service: Service, requests: Sequence[bytes], rate: float) -> OpenLoop:
        try:
            return drive_at(
                (HOST, service.port),
                requests,
                rate=rate,
                connections=workload.main_connections,
                seconds=self._plan.seconds,
            )
        except OSError as exc:
            raise LoadFailed(f"the open loop lost the service: {exc}") from exc

    def _write(self) -> None:
        self._results.write(self._plan.out / "results.json")
        (self._plan.out / "results.md").write_text(markdown(self._results), encoding="utf-8")


def _url(service: Service) -> str:
    return f"http://{HOST}:{service.port}/predict"
