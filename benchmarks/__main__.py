"""The benchmark's command line: `python -m benchmarks run | models`."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from app.errors import ImageclassError
from benchmarks.campaign import Campaign, Plan
from benchmarks.contestant import contestants
from benchmarks.errors import BenchmarkError
from benchmarks.in_process import pipelines
from benchmarks.machine import this_machine
from benchmarks.models import build_mobilenet
from benchmarks.results import Results
from benchmarks.workload import HERE, WORK, WORKLOADS, Workload, mnist, mobilenet, pictures_of_folder, pictures_of_npz

cli = typer.Typer(
    help="Measure the service beside its peers and its ceilings, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_DATA = HERE.parent / "tests" / "data"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (BenchmarkError, ImageclassError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc


@cli.command()
def run(
    short: Annotated[
        bool, typer.Option("--short", help="One round of 3 s, and the few contestants that matter.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only contestants whose name starts so; may be repeated.")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help=f"Only this workload ({' or '.join(WORKLOADS)}); may be repeated.")
    ] = None,
    photos: Annotated[
        Path, typer.Option(help="Folder of photos for MobileNetV2.", show_default="tests/data/photos")
    ] = (_DATA / "photos"),
    mnist_npz: Annotated[
        Path | None, typer.Option("--mnist", help="mnist.npz to take pictures from.", show_default="tests/data/*.png")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Interleaved rounds. [default: 3; short: 1]")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Seconds of each load. [default: 8; short: 3]")] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.", show_default="benchmarks/.work/results")] = (
        WORK / "results"
    ),
) -> None:
    """Start each contestant in turn, drive it, and write results.json and results.md."""
    names = tuple(only or ())
    chosen = [each for each in contestants() if (each.name.startswith(names) if names else each.in_short or not short)]
    ceilings = [each for each in pipelines() if each.name.startswith(names)] if names else pipelines()
    if short and not names:
        ceilings = ceilings[:1]
    with _one_line_errors():
        if not chosen and not ceilings:
            known = ", ".join([*(each.name for each in contestants()), *(each.name for each in pipelines())])
            raise BenchmarkError(f"No contestant's name starts with {' or '.join(names)}. There are: {known}.")
        workloads = [
            _workload(name, photos, mnist_npz) for name in workload or (["mnist"] if short else ["mnist", "mobilenet"])
        ]
        plan = Plan(
            contestants=chosen,
            pipelines=ceilings,
            rounds=rounds or (1 if short else 3),
            seconds=seconds or (3 if short else 8),
            idle_s=2 if short else 5,
            short=short,
            out=out,
        )
        command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
        results = Results(command, this_machine(), plan.rounds, plan.seconds)
        Campaign(plan, results).run(workloads)
    typer.echo((out / "results.md").read_text(encoding="utf-8"))


@cli.command()
def models(
    photos: Annotated[
        Path, typer.Option(help="Folder of photos for the self-check.", show_default="tests/data/photos")
    ] = (_DATA / "photos"),
) -> None:
    """Build the MobileNetV2 bundle that the second workload needs; nothing where it is built already."""
    with _one_line_errors():
        typer.echo(f"built: {_build_mobilenet(photos)}")


def _workload(name: str, photos: Path, mnist_npz: Path | None) -> Workload:
    if name not in WORKLOADS:
        raise BenchmarkError(f"There is no workload '{name}'; there are: {', '.join(WORKLOADS)}.")
    if name == "mnist":
        return mnist(pictures_of_npz(mnist_npz) if mnist_npz else pictures_of_folder(_DATA))
    _build_mobilenet(_DATA / "photos")
    return mobilenet(pictures_of_folder(photos))


def _build_mobilenet(photos: Path) -> Path:
    built = WORK / "model_store" / "mobilenet" / "1"
    if not (built / "manifest.json").exists():
        loaded = build_mobilenet(sorted(photos.glob("*.jpg")))
        for refusal in loaded.refusals:
            typer.echo(f"warning: {refusal}", err=True)
    return built


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that the contestants' processes are ended first
    try:
        cli(prog_name="python -m benchmarks")
    except KeyboardInterrupt:
        sys.exit(130)
