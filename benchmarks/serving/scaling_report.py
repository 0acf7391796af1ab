"""Write scaling.json, scaling.md and a plot of each sweep."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.table import milliseconds, number, table
from benchmarks.harness.wrk import Load
from benchmarks.serving.scaling import Scaling, ScalingPoint, Sweep

_FLATTENED = 10.0
_FIGURES: dict[str, Callable[[Load], float]] = {
    "requests/s": lambda load: load.requests_per_s,
    "p99, ms": lambda load: load.p99_ms,
}


def write_scaling(scaling: Scaling, folder: Path) -> None:
    """Write the results so far, so that an interrupted run keeps them."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = json.dumps(asdict(scaling), indent=1, ensure_ascii=False)
    (folder / "scaling.json").write_text(figures + "\n", encoding="utf-8")
    (folder / "scaling.md").write_text(markdown(scaling), encoding="utf-8")
    for sweep in scaling.sweeps:
        if sweep.points:
            _plot(sweep, folder / _plot_name(sweep))


def markdown(scaling: Scaling) -> str:
    machine = scaling.machine
    head = (
        f"# Scaling\n\n`{scaling.command}`, {machine.date}, commit {machine.commit}\n\n{machine.cpu}, {machine.cores} "
        f"cores; {scaling.seconds:g} s for each point, once; the generator runs on the same cores."
    )
    return "\n\n".join([head, *(_sweep(sweep) for sweep in scaling.sweeps)]) + "\n"


def _sweep(sweep: Sweep) -> str:
    rows = [
        [
            point.label,
            point.contestant,
            number(point.load.requests_per_s),
            milliseconds(point.load.p50_ms),
            milliseconds(point.load.p99_ms),
            str(point.load.not_ok),
        ]
        for point in sweep.points
    ]
    header = [sweep.axis, "contestant", "requests/s", "p50 ms", "p99 ms", "not 200"]
    parts = [f"## {sweep.name}", f"{sweep.about}.", table(header, rows)]
    if sweep.points:
        parts.append(f"![requests/s and p99 against {sweep.axis}]({_plot_name(sweep)})")
    if sweep.failures:
        parts.append("Not measured: " + "; ".join(sweep.failures))
    return "\n\n".join(parts)


def _plot_name(sweep: Sweep) -> str:
    return f"scaling-{sweep.name}.svg"


def _plot(sweep: Sweep, file: Path) -> None:
    """Plot requests/s and p99 against the varied quantity; linear from zero, or logarithmic if that would be flat."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, len(_FIGURES), figsize=(9, 3.4), layout="constrained")
    for axes, (title, of_load) in zip(both, _FIGURES.items(), strict=True):
        for name, points in _series(sweep).items():
            axes.plot([point.x for point in points], [of_load(point.load) for point in points], marker="o", label=name)
        ticks = sorted({point.x for point in sweep.points})
        axes.set(title=title, xlabel=sweep.axis, xscale="log")
        axes.set_xticks(ticks, labels=[f"{tick:,.0f}" if tick >= 100 else f"{tick:.2g}" for tick in ticks])
        axes.minorticks_off()
        values = [of_load(point.load) for point in sweep.points]
        if max(values) > _FLATTENED * min(values) > 0:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.1 * max(values))
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _series(sweep: Sweep) -> dict[str, list[ScalingPoint]]:
    """Return the points by contestant, or all as one series if each contestant has only one."""
    series: dict[str, list[ScalingPoint]] = {}
    for point in sweep.points:
        series.setdefault(point.contestant, []).append(point)
    if all(len(points) == 1 for points in series.values()):
        return {"ours": list(sweep.points)}
    return series
