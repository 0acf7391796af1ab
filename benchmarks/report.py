"""results.md: the tables of a run, from its results and nothing else."""

from collections.abc import Callable, Sequence

from benchmarks.contestant import BASELINE
from benchmarks.machine import Machine
from benchmarks.open_loop import OpenLoop
from benchmarks.results import Results, WorkloadResult, middle
from benchmarks.wrk import Load

_NONE = "–"
_REFERENCE_ENGINES = (BASELINE, "tutorial-1", "ours-tensorflow-f32-1")


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [_head(results)]
    for workload in results.workloads:
        parts.append(f"## {workload.name}: {workload.pictures}")
        parts.append(_ceilings(workload))
        parts += [_closed_loop(workload, connections) for connections in workload.connections]
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
            f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb} GB; {machine.system}; Python {machine.python}; "
            f"{machine.wrk}. {_versions(machine)}."
        ),
        "",
        (
            f"Medians of {results.rounds} interleaved round(s) of {results.seconds:g} s at each number of connections. "
            "The generator runs on the same cores. “not 200” adds up all rounds."
        ),
    ]
    return "\n".join(lines)


def _versions(machine: Machine) -> str:
    return ", ".join(f"{library} {version}" for library, version in machine.versions.items())


def _ceilings(workload: WorkloadResult) -> str:
    rows = []
    for pipeline in workload.pipelines:
        best = pipeline.best()
        speed, split = (f"{best[0]:,.0f}", best[1]) if best else (_NONE, pipeline.failure or "")
        limits = [_number(workload.limit(connections, pipeline.precision)) for connections in workload.connections[1:]]
        if "openvino" not in pipeline.name:
            limits = [_NONE] * len(limits)
        rows.append([pipeline.name, speed, split, *limits])
    columns = [f"limit at {connections}" for connections in workload.connections[1:]]
    note = "Limit: 1 / (1/bare + 1/in-process), in requests/s at so many connections."
    return (
        f"### In process, without HTTP\n\n{_table(['pipeline', 'pictures/s', 'best split', *columns], rows)}\n\n{note}"
    )


def _closed_loop(workload: WorkloadResult, connections: int) -> str:
    single = connections == 1
    baseline_service = workload.service(BASELINE)
    baseline = baseline_service.at(connections, _speed) if baseline_service else None
    rows = []
    for service in workload.services:
        speed = service.at(connections, _speed)
        if speed is None:
            continue
        p50 = service.at(connections, lambda load: load.p50_ms)
        bare = workload.bare_p50_ms(connections)
        if single:
            last = _NONE if bare is None or p50 is None else f"{p50 - bare:+.2f}"
        else:
            limit = None if service.group == "ceiling" else workload.limit(connections, service.precision)
            last = _ratio(speed, limit, percent=True)
        rows.append(
            [
                service.name,
                _number(speed),
                *(_milliseconds(service.at(connections, figure)) for figure in _LATENCIES.values()),
                str(sum(load.not_ok for load in service.loads(connections))),
                _ratio(speed, baseline),
                last,
            ]
        )
    title = f"### {connections} connection{'' if single else 's'}"
    header = ["contestant", "requests/s", *_LATENCIES, "not 200", f"× {BASELINE}"]
    last_column = "p50 over bare, ms" if single else "of the limit"
    return f"{title}\n\n{_table([*header, last_column], rows)}"


def _open_loop(workload: WorkloadResult) -> str:
    rows = [
        [
            service.name,
            f"{fixed.share:.0%}{' (capped)' if fixed.capped else ''}",
            _number(fixed.result.rate),
            _number(fixed.result.answered_per_s),
            *(_milliseconds(figure) for figure in _percentiles(fixed.result)),
            str(fixed.result.not_ok),
            f"{fixed.result.generator_busy:.0%}",
        ]
        for service in workload.services
        for fixed in service.fixed_rates
    ]
    if not rows:
        return ""
    header = ["contestant", "of its peak", "sent/s", "answered/s", *_LATENCIES, "max ms", "not 200", "generator"]
    note = "Latency from when each request was due. “generator”: its own share of one core."
    if limit := workload.generator_limit:
        note += (
            f" Its limit, against the bare application on the same cores: {limit.answered_per_s:,.0f} requests/s at "
            f"{limit.generator_busy:.0%} of a core; higher rates are capped to 90 % of that."
        )
    return f"### Open loop, fixed rates\n\n{_table(header, rows)}\n\n{note}"


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
                _number(middle(sample.memory_mb for sample in service.samples)),
                str(service.samples[-1].processes),
                f"{middle(sample.start_s for sample in service.samples) or 0:.2f}",
                f"{middle(sample.idle_cpu_percent for sample in service.samples) or 0:.1f}",
                _NONE if service.group == "ceiling" or not reference else f"{agreement} of {len(reference)}",
            ]
        )
    header = ["contestant", "memory MB (PSS)", "processes", "start s", "idle, % of a core", "labels as TensorFlow"]
    note = "Memory: all processes, after the load. Start: from the command to the first answer 200."
    return f"### Memory, start, idle\n\n{_table(header, rows)}\n\n{note}"


def _absent(workload: WorkloadResult) -> str:
    rows = [[service.name, service.about, service.failure] for service in workload.services if service.failure]
    rows += [[pipeline.name, "in process", pipeline.failure] for pipeline in workload.pipelines if pipeline.failure]
    return f"### Not measured, or not to the end\n\n{_table(['contestant', 'what', 'why'], rows)}" if rows else ""


def _reference_labels(workload: WorkloadResult) -> Sequence[str]:
    for name in _REFERENCE_ENGINES:
        service = workload.service(name)
        if service and service.samples:
            return service.samples[0].labels
    return ()


def _speed(load: Load) -> float:
    return load.requests_per_s


_LATENCIES: dict[str, Callable[[Load], float]] = {
    "p50 ms": lambda load: load.p50_ms,
    "p90 ms": lambda load: load.p90_ms,
    "p99 ms": lambda load: load.p99_ms,
    "p99.9 ms": lambda load: load.p999_ms,
}


def _percentiles(result: OpenLoop) -> tuple[float, ...]:
    return (result.p50_ms, result.p90_ms, result.p99_ms, result.p999_ms, result.max_ms)


def _ratio(figure: float, base: float | None, *, percent: bool = False) -> str:
    if not base:
        return _NONE
    return f"{figure / base:.0%}" if percent else f"{figure / base:.2f}"


def _number(figure: float | None) -> str:
    return _NONE if figure is None else f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"


def _milliseconds(figure: float | None) -> str:
    return _NONE if figure is None else f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column left, the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
