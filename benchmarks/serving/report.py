"""Write results.md: the tables of a run, from its results alone."""

from collections.abc import Callable, Sequence

from benchmarks.harness.contestant import BASELINE
from benchmarks.harness.machine import Machine
from benchmarks.harness.open_loop import OpenLoop
from benchmarks.harness.request import BATCH_PICTURES
from benchmarks.harness.table import NONE, milliseconds, number, percent, ratio, table
from benchmarks.harness.wrk import Load
from benchmarks.serving.results import ByRound, Results, ServiceResult, WorkloadResult, middle, over
from benchmarks.serving.targets import Target, targets

_REFERENCE_ENGINES = (BASELINE, "tutorial-1", "ours-tensorflow-f32-1")


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [_head(results), _targets(results)]
    for workload in results.workloads:
        parts.append(f"## {workload.name}: {workload.pictures}")
        parts.append(_ceilings(workload))
        parts += [_closed_loop(workload, connections) for connections in workload.connections]
        parts.append(_bodies(workload))
        parts.append(_open_loop(workload))
        parts.append(_footprint(workload))
        parts.append(_absent(workload))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Results) -> str:
    machine = results.machine
    lines = [
        "# Benchmark",
        "",
        f"`{results.command}`, {machine.date}, commit {machine.commit}"
        + ("" if results.finished else "; **not finished**"),
        "",
        (
            f"{machine.cpu}, {machine.cores} cores{' with bf16' if machine.bf16 else ''}, {machine.memory_gb} GB; "
            f"{machine.system}; Python {machine.python}; "
            f"{machine.wrk}. {_versions(machine)}."
        ),
        "",
        (
            f"Medians of {results.rounds} interleaved round(s), {results.seconds:g} s for each load. "
            "The generator runs on the same cores. Ratios are taken within each round, and then their median. "
            "“not 200” adds up all rounds."
        ),
    ]
    return "\n".join(lines)


def _versions(machine: Machine) -> str:
    return ", ".join(f"{library} {version}" for library, version in machine.versions.items())


def _targets(results: Results) -> str:
    rows = [
        [
            target.what,
            f"{'≤' if target.at_most else '≥'} {_with_unit(target.aim, target.unit)}",
            _with_unit(target.figure, target.unit),
            " – ".join(_with_unit(figure, target.unit) for figure in _range(target)),
            {True: "yes", False: "**no**", None: f"not measured: {target.missing}"}[target.reached],
        ]
        for target in targets(results)
    ]
    header = ["target", "aim", "median of the rounds", "lowest – highest", "reached"]
    note = ""
    if soak := results.soak:
        note = f"\n\nMemory growth: {soak.requests:,} requests, {soak.date}, commit {soak.commit}."
    return f"## Targets\n\n{table(header, rows)}{note}"


def _range(target: Target) -> tuple[float, ...]:
    return (min(target.figures), max(target.figures)) if len(target.figures) > 1 else ()


def _with_unit(figure: float | None, unit: str) -> str:
    if figure is None:
        return NONE
    return f"{100 * figure:.3g} %" if unit == "%" else f"{figure:.3g} {unit}"


def _ceilings(workload: WorkloadResult) -> str:
    rows = []
    for pipeline in workload.pipelines:
        best = pipeline.best()
        speed, split = (f"{best[0]:,.0f}", str(best[1])) if best else (NONE, pipeline.failure or "")
        limits = [
            number(_middle(workload.limit(connections, pipeline.precision)) if "openvino" in pipeline.name else None)
            for connections in workload.connections[1:]
        ]
        rows.append([pipeline.name, speed, split, *limits])
    columns = [f"limit at {connections}" for connections in workload.connections[1:]]
    note = "Limit: 1 / (1/bare + 1/in-process) of each round, in requests/s at this many connections."
    header = ["pipeline", "pictures/s", "best split", *columns]
    return f"### In process, without HTTP\n\n{table(header, rows)}\n\n{note}"


def _closed_loop(workload: WorkloadResult, connections: int) -> str:
    single = connections == 1
    baseline_service = workload.service(BASELINE)
    baseline = baseline_service.by_round(connections, _speed) if baseline_service else {}
    rows = []
    for service in workload.services:
        speed = service.by_round(connections, _speed)
        if not speed:
            continue
        if single:
            last = _difference(service.by_round(connections, _p50_ms), workload.bare_p50_ms(connections))
        else:
            limit = {} if service.group == "ceiling" else workload.limit(connections, service.precision)
            last = percent(_middle(over(speed, limit)))
        rows.append(
            [
                service.name,
                number(_middle(speed)),
                *(milliseconds(service.at(connections, figure)) for figure in _LATENCIES.values()),
                str(sum(load.not_ok for load in service.loads(connections))),
                ratio(_middle(over(speed, baseline))),
                last,
            ]
        )
    title = f"### {connections} connection{'' if single else 's'}"
    header = ["contestant", "requests/s", *_LATENCIES, "not 200", f"× {BASELINE}"]
    last_column = "p50 over bare, ms" if single else "of the limit"
    return f"{title}\n\n{table([*header, last_column], rows)}"


def _bodies(workload: WorkloadResult) -> str:
    """Compare raw bodies with multipart, and batches with the pictures a second in process."""
    connections = workload.main_connections
    rows = []
    for service in workload.services:
        raw = service.by_round(connections, _speed, "raw")
        if not raw:
            continue
        multipart = service.by_round(connections, _speed)
        cells = [service.name, number(_middle(multipart)), number(_middle(raw)), ratio(_middle(over(raw, multipart)))]
        inside = {} if service.group == "ceiling" else workload.in_process(service.precision)
        for batch_connections in workload.batch_connections:
            requests = service.by_round(batch_connections, _speed, "batch")
            pictures = {turn: BATCH_PICTURES * figure for turn, figure in requests.items()}
            cells += [number(_middle(pictures)), percent(_middle(over(pictures, inside)))]
        rows.append(cells)
    if not rows:
        return ""
    header = ["contestant", "multipart requests/s", "raw requests/s", "raw over multipart"]
    for batch_connections in workload.batch_connections:
        header += [f"batch pictures/s, {batch_connections} connections", "of in process"]
    note = f"Multipart and raw at {connections} connections."
    if workload.batch_connections:
        note += f" Batches of {BATCH_PICTURES} pictures to /predict/batch."
    return f"### Bodies\n\n{table(header, rows)}\n\n{note}"


def _open_loop(workload: WorkloadResult) -> str:
    rows = [
        [
            service.name,
            f"{fixed.share:.0%}{' (capped)' if fixed.capped else ''}",
            number(fixed.result.rate),
            number(fixed.result.answered_per_s),
            *(milliseconds(figure) for figure in _percentiles(fixed.result)),
            str(fixed.result.not_ok),
            f"{fixed.result.generator_busy:.0%}",
        ]
        for service in workload.services
        for fixed in service.fixed_rates
    ]
    if not rows:
        return ""
    header = ["contestant", "of closed loop", "sent/s", "answered/s", *_LATENCIES, "max ms", "not 200", "generator"]
    note = "Latency from when each request was due. “generator”: its own share of one core."
    if limit := workload.generator_limit:
        note += (
            f" Its limit, against the bare application on the same cores: {limit.answered_per_s:,.0f} requests/s at "
            f"{limit.generator_busy:.0%} of a core; higher rates are capped to 90 % of that."
        )
    return f"### Open loop, fixed rates\n\n{table(header, rows)}\n\n{note}"


def _footprint(workload: WorkloadResult) -> str:
    reference = _reference_labels(workload)
    rows = []
    for service in workload.services:
        if not service.samples:
            continue
        labels = service.samples[0].labels
        agreement = sum(mine == theirs for mine, theirs in zip(labels, reference, strict=False))
        rows.append(
            [
                service.name,
                number(middle(sample.memory_mb for sample in service.samples)),
                str(service.samples[-1].processes),
                f"{middle(sample.start_s for sample in service.samples) or 0:.2f}",
                _idle(service),
                NONE if service.group == "ceiling" or not reference else f"{agreement} of {len(reference)}",
            ]
        )
    header = ["contestant", "memory MB (PSS)", "processes", "start s", "idle, % of a core", "labels as TensorFlow"]
    note = "Memory: all processes, after the load. Start: from the command to the first answer 200."
    return f"### Memory, start, idle\n\n{table(header, rows)}\n\n{note}"


def _idle(service: ServiceResult) -> str:
    idle = middle(sample.idle_cpu_percent for sample in service.samples if sample.idle_cpu_percent is not None)
    return NONE if idle is None else f"{idle:.1f}"


def _absent(workload: WorkloadResult) -> str:
    rows = [[service.name, service.about, service.failure] for service in workload.services if service.failure]
    rows += [[pipeline.name, "in process", pipeline.failure] for pipeline in workload.pipelines if pipeline.failure]
    return f"### Not measured, or not to the end\n\n{table(['contestant', 'what', 'why'], rows)}" if rows else ""


def _reference_labels(workload: WorkloadResult) -> Sequence[str]:
    for name in _REFERENCE_ENGINES:
        service = workload.service(name)
        if service and service.samples:
            return service.samples[0].labels
    return ()


def _speed(load: Load) -> float:
    return load.requests_per_s


def _p50_ms(load: Load) -> float:
    return load.p50_ms


_LATENCIES: dict[str, Callable[[Load], float]] = {
    "p50 ms": _p50_ms,
    "p90 ms": lambda load: load.p90_ms,
    "p99 ms": lambda load: load.p99_ms,
    "p99.9 ms": lambda load: load.p999_ms,
}


def _percentiles(result: OpenLoop) -> tuple[float, ...]:
    return (result.p50_ms, result.p90_ms, result.p99_ms, result.p999_ms, result.max_ms)


def _middle(figures: ByRound) -> float | None:
    return middle(figures.values())


def _difference(figures: ByRound, base: ByRound) -> str:
    apart = middle(figures[turn] - base[turn] for turn in figures.keys() & base.keys())
    return NONE if apart is None else f"{apart:+.2f}"
