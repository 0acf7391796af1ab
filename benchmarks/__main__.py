"""The benchmark's command line: `python -m benchmarks run | stages | soak | swap | overload | metrics-overhead | …`."""

import itertools
import resource
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from app.contract.bundle import open_bundle
from app.contract.store import ModelStore
from app.errors import ImageclassError
from app.system.cores import available_cores
from benchmarks.audit import recall as audit_benchmark
from benchmarks.harness.contestant import contestants, ours
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import Machine, this_machine
from benchmarks.harness.models import build
from benchmarks.harness.workload import (
    HERE,
    WORK,
    WORKLOADS,
    Workload,
    lite0,
    mnist,
    mobilenet,
    phone,
    pictures_of_folder,
    pictures_of_npz,
    resnet50,
)
from benchmarks.serving import trust_overhead as trust_overhead_benchmark
from benchmarks.serving.bulk import bulk_table, measure_memory, measure_speed
from benchmarks.serving.by_url import measure_by_url
from benchmarks.serving.campaign import Campaign, Plan
from benchmarks.serving.in_process import pipelines
from benchmarks.serving.metrics_overhead import measure_metrics_overhead, metrics_overhead_line
from benchmarks.serving.overload import overload as run_overload
from benchmarks.serving.overload import overload_table
from benchmarks.serving.peers import measure_peers
from benchmarks.serving.protocols import measure_protocols, protocols_table
from benchmarks.serving.ray_data import measure_ray
from benchmarks.serving.results import Results
from benchmarks.serving.scaling import Scaling, sweeps
from benchmarks.serving.scaling_report import write_scaling
from benchmarks.serving.soak import read_soak
from benchmarks.serving.soak import soak as run_soak
from benchmarks.serving.stages import PROTOCOLS, measure_stages
from benchmarks.serving.swap import measure_swaps
from benchmarks.serving.tracing_overhead import measure_tracing_overhead, tracing_overhead_line
from benchmarks.training import accuracy as accuracy_benchmark
from benchmarks.training import explanations as explanations_benchmark
from benchmarks.training import left_out as left_out_benchmark
from benchmarks.training import photos as photos_benchmark
from benchmarks.training import reduced_scale as reduced_scale_benchmark
from benchmarks.training import signs as signs_benchmark
from benchmarks.training import strange as strange_benchmark
from benchmarks.training import trust as trust_benchmark
from training.model.presets import PRESETS, preset_named

cli = typer.Typer(
    help="Benchmark the service against its peers and against upper bounds, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Run = TypeVar("_Run")
_DATA = HERE.parent / "tests" / "data"
_SOAK = "soak.json"

Photos = Annotated[Path, typer.Option(help="Folder of photos for 224×224.", show_default="tests/data/photos")]
MnistNpz = Annotated[
    Path | None, typer.Option("--mnist", help="mnist.npz, the source of the pictures.", show_default="tests/data/*.png")
]
BundleStore = Annotated[Path, typer.Option(help="Store of the model.", show_default=False)]
BundleName = Annotated[str, typer.Option(help="Which model of the store; its newest version.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder for the results.", show_default="benchmarks/.work/results")]


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
        bool, typer.Option("--short", help="One round of 2 s with the most important contestants.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only contestants whose name starts with this; may be repeated.")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help=f"Only this workload ({' or '.join(WORKLOADS)}); may be repeated.")
    ] = None,
    photos: Photos = _DATA / "photos",
    mnist_npz: MnistNpz = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Interleaved rounds. (default: 3; short: 1)")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Seconds of each load. (default: 4; short: 2)")] = None,
    out: Out = WORK / "results",
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
            seconds=seconds or (2 if short else 4),
            idle_s=2 if short else 3,
            shares=(0.8,) if short else (0.5, 0.8, 0.95),
            short=short,
            out=out,
        )
        results = Results(_command(), this_machine(), plan.rounds, plan.seconds, soak=read_soak(out / _SOAK))
        Campaign(plan, results).run(workloads)
    typer.echo((out / "results.md").read_text(encoding="utf-8"))


@cli.command()
def protocols(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the service.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each drives every protocol once.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load.")] = 2,
    mnist_npz: MnistNpz = None,
    out: Out = WORK / "results",
) -> None:
    """Send the same pictures to one service by every protocol that it speaks, and write protocols.md."""
    with _one_line_errors():
        found = measure_protocols(
            _workload("mnist", _DATA / "photos", mnist_npz), workers=workers, rounds=rounds, seconds=seconds
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "protocols.md").write_text(protocols_table(found) + "\n", encoding="utf-8")
    typer.echo(protocols_table(found))


@cli.command()
def peers(
    name: Annotated[
        str, typer.Option("--workload", help="mnist, lite0 (photos) or phone (photos of 12 megapixels).")
    ] = "mnist",
    only: Annotated[
        list[str] | None, typer.Option(help="A peer to take part; several times for more. All, if none.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which each service is driven once.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load.")] = 3,
    mnist_npz: MnistNpz = None,
    photos: Photos = _DATA / "photos",
    out: Out = WORK / "results",
) -> None:
    """Drive this service and its peers in turns, all with the same network on OpenVINO, and write peers-NAME.md."""
    with _one_line_errors():
        found = measure_peers(
            _workload(name, photos, mnist_npz), rounds=rounds, seconds=seconds, only=tuple(only or ())
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / f"peers-{name}.md").write_text(found.markdown() + "\n", encoding="utf-8")
    typer.echo(found.markdown())


@cli.command()
def soak(
    requests: Annotated[int, typer.Option(min=1, help="Requests after the warm-up.")] = 1_000_000,
    every: Annotated[int, typer.Option(min=1, help="Requests between two readings, and of the warm-up.")] = 50_000,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the service.")] = 2,
    mnist_npz: MnistNpz = None,
    out: Out = WORK / "results",
) -> None:
    """Drive the service for very many requests, read its memory meanwhile, and write soak.json."""
    with _one_line_errors():
        workload = _workload("mnist", _DATA / "photos", mnist_npz)
        contestant = ours("openvino", workers=workers)
        found = run_soak(contestant, workload, this_machine(), requests=requests, every=every)
    found.write(out / _SOAK)
    typer.echo(f"{found.growth_mb:+.1f} MB over {found.requests:,} requests after the warm-up: {out / _SOAK}")


@cli.command()
def overload(
    name: Annotated[str, typer.Option("--workload", help=f"Workload: one of {', '.join(WORKLOADS)}.")] = "mnist",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the service.")] = 2,
    times: Annotated[float, typer.Option(min=1, help="The load, in peaks of the service.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the three loads.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load.")] = 5,
    settle: Annotated[float, typer.Option(min=0.5, help="Seconds of overload before the measurement.")] = 5,
    photos: Photos = _DATA / "photos",
    mnist_npz: MnistNpz = None,
    out: Out = WORK / "results",
) -> None:
    """Ask more than the service can do, and write overload-<workload>.md."""
    _allow_many_files()
    with _one_line_errors():
        found = run_overload(
            ours("openvino", workers=workers),
            _workload(name, photos, mnist_npz),
            times=times,
            rounds=rounds,
            seconds=seconds,
            settle_s=settle,
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / f"overload-{name}.md").write_text(overload_table(found) + "\n", encoding="utf-8")
    typer.echo(overload_table(found))


@cli.command()
def metrics_overhead(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the service.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of one load on each.")] = 15,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load.")] = 3,
    mnist_npz: MnistNpz = None,
) -> None:
    """Say what metrics, request ids in the log and so on cost: the service beside itself without them."""
    with _one_line_errors():
        workload = _workload("mnist", _DATA / "photos", mnist_npz)
        found = measure_metrics_overhead(workload, workers=workers, rounds=rounds, seconds=seconds)
    typer.echo(metrics_overhead_line(found))


@cli.command()
def tracing_overhead(
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the requests that are traced.")] = 0.01,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the service.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of one load on each.")] = 15,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load.")] = 3,
    mnist_npz: MnistNpz = None,
) -> None:
    """Say how much CPU time a request takes without tracing, with a share of the requests traced, and with all."""
    with _one_line_errors():
        workload = _workload("mnist", _DATA / "photos", mnist_npz)
        found = measure_tracing_overhead(workload, share=share, workers=workers, rounds=rounds, seconds=seconds)
    typer.echo(tracing_overhead_line(found))


@cli.command()
def stages(
    mnist_npz: MnistNpz = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of the load.")] = 5,
    out: Out = WORK / "results",
) -> None:
    """Divide the CPU time of a request into stages, for /predict, v2 and gRPC, and write stages.md."""
    tables = []
    with _one_line_errors():
        workload = _workload("mnist", _DATA / "photos", mnist_npz)
        for protocol in PROTOCOLS:
            found = measure_stages(workload, protocol, seconds=seconds)
            cores = this_machine().cores
            tables.append(f"{found.markdown()}\n\nAt {found.requests_per_s:,.0f} requests/s on {cores} cores.")
    out.mkdir(parents=True, exist_ok=True)
    (out / "stages.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    typer.echo("\n\n".join(tables))


@cli.command()
def swap(
    swaps: Annotated[int, typer.Option(min=1, help="Number of versions to publish, one after another.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of the service.")] = 2,
    mnist_npz: MnistNpz = None,
    out: Out = WORK / "results",
) -> None:
    """Publish versions under load: latency while they are loaded, seconds to pickup, failures, and memory after."""
    with _one_line_errors():
        found = measure_swaps(_workload("mnist", _DATA / "photos", mnist_npz), swaps=swaps, workers=workers)
    out.mkdir(parents=True, exist_ok=True)
    (out / "swap.md").write_text(found.markdown() + "\n", encoding="utf-8")
    typer.echo(found.markdown())


@cli.command()
def scaling(
    photos: Photos = _DATA / "photos",
    mnist_npz: MnistNpz = None,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each point.")] = 4,
    out: Out = WORK / "results",
) -> None:
    """Sweep connections, picture bytes, model, batch size and workers; write scaling.json, scaling.md and plots."""
    _allow_many_files()
    with _one_line_errors():
        models = [(name, _workload(name, photos, mnist_npz)) for name in WORKLOADS]
        found = Scaling(_command(), this_machine(), seconds)
        for sweep in sweeps(models[0][1], models, pictures_of_folder(photos), seconds=seconds):
            found.sweeps.append(sweep)
            write_scaling(found, out)
    typer.echo((out / "scaling.md").read_text(encoding="utf-8"))


@cli.command()
def audit(
    mnist_npz: Annotated[
        Path | None, typer.Option("--mnist", help="mnist.npz; without it, this part is skipped.")
    ] = None,
    signs: Annotated[Path | None, typer.Option(help="Folder of sign_digits; without it, this part is skipped.")] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of labelled photos; without it, this part is skipped.")
    ] = None,
    each: Annotated[
        int | None, typer.Option(min=1, help="Copies of each kind. (default: 300; signs and photos: 100)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the planted defects.")] = 0,
    only: Annotated[Literal["copies", "labels"] | None, typer.Option(help="Only one of the two halves.")] = None,
    beside: Annotated[bool, typer.Option("--beside", help="Run cleanvision and cleanlab on the same data.")] = False,
    out: Out = WORK / "results",
) -> None:
    """Plant defects in good data, audit it, and write audit.md: recall and precision of every check."""
    given = [(str(path), count) for path, count in ((mnist_npz, 300), (signs, 100), (photos, 100)) if path]
    rows: list[audit_benchmark.Row] = []
    notes = [f"`{_command()}` on {this_machine().cpu}, {this_machine().cores} cores"]
    out.mkdir(parents=True, exist_ok=True)
    with _one_line_errors():
        if not given:
            raise BenchmarkError(
                "Nothing to measure on: give --mnist mnist.npz, --signs sign_digits or --photos FOLDER."
            )
        for data, count in given:
            dataset = audit_benchmark.unsplit(data)
            if only != "labels":
                found, lines = audit_benchmark.measure_copies(dataset, each=each or count, seed=seed, beside=beside)
                rows += found
                notes += lines
                (out / "audit.md").write_text(audit_benchmark.markdown(rows, notes), encoding="utf-8")
            if only != "copies":
                rows += audit_benchmark.measure_labels(dataset, seed=seed, beside=beside)
                (out / "audit.md").write_text(audit_benchmark.markdown(rows, notes), encoding="utf-8")
    typer.echo((out / "audit.md").read_text(encoding="utf-8"))


@cli.command()
def signs(
    data: Annotated[str, typer.Option(help="Folder of sign_digits, or any data that fit accepts.", show_default=False)],
    preset: Annotated[
        list[str] | None,
        typer.Option(help="A preset of fit; may be repeated.", show_default="photos_from_scratch and seed"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds; each is held out once.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the folds and the training.")] = 0,
    group_by: Annotated[str, typer.Option(help="Value of fit's --group-by.")] = "runs",
    only: Annotated[Literal["by person", "at random"] | None, typer.Option(help="Only this way to split.")] = None,
    published: Annotated[bool, typer.Option(help="Fail if the folds differ from signs_folds.csv.")] = True,
    out: Out = WORK / "results",
) -> None:
    """Test presets on every fold, by person and at random, and write signs.md: accuracy, by class, cost, the gap."""
    machine = this_machine()
    notes = [f"`{_command()}`, commit {machine.commit}, on {machine.cpu}, {machine.cores} cores, {machine.date}"]
    found: signs_benchmark.Found = {}
    ways = {signs_benchmark.BY_PERSON: group_by, signs_benchmark.AT_RANDOM: None}
    out.mkdir(parents=True, exist_ok=True)
    with _one_line_errors():
        presets = [preset_named(name) for name in preset or ("photos_from_scratch", "seed")]
        for (split, by), chosen in itertools.product(ways.items(), presets):
            if only in (None, split):
                results = found[chosen.name, split] = []
                for result in signs_benchmark.measure_folds(data, chosen, count=folds, seed=seed, group_by=by):
                    results.append(result)
                    (out / "signs.md").write_text(signs_benchmark.markdown(found, notes), encoding="utf-8")
                if published and by is not None:
                    signs_benchmark.check_published(results)
    typer.echo((out / "signs.md").read_text(encoding="utf-8"))


@cli.command()
def accuracy(
    mnist_npz: Annotated[Path, typer.Option("--mnist", help="mnist.npz.", show_default=False)],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each, with different seeds.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="First seed; the others follow it.")] = 0,
    only: Annotated[
        str, typer.Option(help="What to train: presets, or tutorial for the tutorial's own script.")
    ] = ",".join(accuracy_benchmark.CONTESTANTS),
    out: Out = WORK / "results",
) -> None:
    """Train presets and the tutorial's script in turn, and write accuracy.json and accuracy.md after every training."""
    _train_in_turn(
        only.split(","),
        (accuracy_benchmark.TUTORIAL, *PRESETS),
        range(first_seed, first_seed + seeds),
        lambda name, seed: accuracy_benchmark.train_once(name, seed=seed, mnist=mnist_npz),
        lambda runs, machine: accuracy_benchmark.write(runs, out, command=_command(), machine=machine),
        accuracy_benchmark.line,
        out,
    )
    typer.echo((out / "accuracy.md").read_text(encoding="utf-8"))


@cli.command()
def photos(
    data: Annotated[str, typer.Option(help="Folder of photos, or any data that fit accepts.", show_default=False)],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each, with different seeds.")] = 3,
    only: Annotated[str, typer.Option(help="What to train.")] = ",".join(photos_benchmark.CONTESTANTS),
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Use only this many photos of each class, drawn separately for each seed.")
    ] = None,
    out: Out = WORK / "results",
) -> None:
    """Train `fit` and the baselines on photos in turn; write photos.json and photos.md after every training."""
    _train_in_turn(
        only.split(","),
        photos_benchmark.CONTESTANTS,
        range(seeds),
        lambda name, seed: photos_benchmark.train_once(name, seed=seed, data=data, per_class=per_class),
        lambda runs, machine: photos_benchmark.write(runs, out, command=_command(), machine=machine),
        photos_benchmark.line,
        out,
    )
    typer.echo((out / "photos.md").read_text(encoding="utf-8"))


@cli.command()
def trust(
    store: BundleStore,
    model: BundleName,
    familiar: Annotated[
        Path,
        typer.Option(help="Familiar pictures that were not trained on, in one folder per label.", show_default=False),
    ],
    strange: Annotated[
        list[Path], typer.Option(help="Folder of unfamiliar pictures; may be repeated.", show_default=False)
    ],
    out: Out = WORK / "results",
) -> None:
    """Measure how well unfamiliar pictures are recognised, whether rates hold, and the cost, and write trust.md."""
    with _one_line_errors():
        bundle = open_bundle(ModelStore(store).newest(model))
        tables = trust_benchmark.measure(bundle, familiar, strange, threads=available_cores(), plots=out)
    _write_page(out / "trust.md", tables, this_machine())


@cli.command("left-out")
def left_out(
    store: BundleStore,
    model: BundleName,
    data: Annotated[Path, typer.Option(help="Folder with train, validation and test.", show_default=False)],
    out: Out = WORK / "results",
) -> None:
    """Leave each class in turn out of the last layer, measure how well its pictures are recognised as unfamiliar, and
    write left-out.md."""
    with _one_line_errors():
        bundle = open_bundle(ModelStore(store).newest(model))
        splits = (data / "train", data / "validation", data / "test")
        found = left_out_benchmark.measure(bundle, *splits, threads=available_cores(), say=typer.echo)
    _write_page(out / "left-out.md", found, this_machine())


@cli.command("reduced-scale")
def reduced_scale(
    store: BundleStore,
    model: BundleName,
    data: Annotated[Path, typer.Option(help="Folder with one of test photos for each label.", show_default=False)],
    out: Out = WORK / "results",
) -> None:
    """Measure accuracy on photos of 12 megapixels, decoded whole and at a reduced scale; write reduced-scale.md."""
    with _one_line_errors():
        bundle = open_bundle(ModelStore(store).newest(model))
        found = reduced_scale_benchmark.measure(bundle, data, threads=available_cores(), say=typer.echo)
    _write_page(out / "reduced-scale.md", found, this_machine())


@cli.command("trust-overhead")
def trust_overhead(
    store: BundleStore,
    model: BundleName,
    pictures: Annotated[Path, typer.Option(help="Folder of pictures to send; the first 50.", show_default=False)],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all kinds of request.")] = 5,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each kind in a round.")] = 50,
    out: Out = WORK / "results",
) -> None:
    """Measure what answers about trust cost in CPU time, and write trust-overhead.md."""
    with _one_line_errors():
        bundle = open_bundle(ModelStore(store).newest(model))
        sent = [file.read_bytes() for file in trust_benchmark.pictures_in(pictures)[:50]]
        found = trust_overhead_benchmark.measure(bundle, sent, rounds=rounds, requests=requests)
    _write_page(out / "trust-overhead.md", found, this_machine())


@cli.command()
def strange(
    mnist: Annotated[Path, typer.Option(help="mnist.npz, Keras's file.", show_default=False)],
    fonts: Annotated[Path, typer.Option(help="Folder with fonts.")] = Path("/usr/share/fonts/truetype"),
    out: Out = WORK / "strange",
) -> None:
    """Write MNIST's test digits and pictures that are not digits, a folder for each kind, for `trust`."""
    for name, count in strange_benchmark.write(mnist, fonts, out).items():
        typer.echo(f"{count:,} in {out / name}")


@cli.command()
def explanations(
    store: BundleStore,
    model: BundleName,
    pictures: Annotated[Path, typer.Option(help="Pictures that it has not learned.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="How many of them.")] = 60,
    few: Annotated[int, typer.Option(min=0, help="How many of them for RISE.")] = 20,
    masks: Annotated[int, typer.Option(min=1, help="Masks of RISE for each.")] = 300,
    out: Out = WORK / "results",
) -> None:
    """Measure how well heat maps say what a network looks at, and write explanations.md."""
    with _one_line_errors():
        bundle = open_bundle(ModelStore(store).newest(model))
        found = explanations_benchmark.measure(
            bundle, pictures, count=count, few=few, masks=masks, threads=available_cores(), say=typer.echo, plots=out
        )
    _write_page(out / "explanations.md", found, this_machine())


@cli.command()
def bulk(
    store: Annotated[
        Path | None,
        typer.Option(help="Store of a model for photos; without it, only mnist is measured.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option(help="Model of the store.")] = "photos",
    photos: Photos = _DATA / "photos",
    mnist_npz: MnistNpz = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each contestant.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each measurement.")] = 10,
    files: Annotated[int, typer.Option(min=1, help="Number of files in the run that measures memory.")] = 100_000,
    out: Out = WORK / "results",
) -> None:
    """Measure predict --shards beside the pictures/s in process, and its memory, and write bulk.md."""
    machine = this_machine()
    with _one_line_errors():
        measured = [(ModelStore(HERE.parent / "model_store").newest("mnist"), _digits(mnist_npz), 0.70)]
        if store is not None:
            measured.append((ModelStore(store).newest(model), sorted(photos.rglob("*.jpg")), 0.95))
        speeds = [
            measure_speed(bundle, pictures, target=target, rounds=rounds, seconds=seconds)
            for bundle, pictures, target in measured
        ]
        memories = [measure_memory(bundle, pictures, files=files) for bundle, pictures, _ in measured]
    _write_page(out / "bulk.md", bulk_table(speeds, memories), machine)


@cli.command()
def by_url(
    mnist_npz: MnistNpz = None,
    files: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of both.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load of wrk.")] = 3,
    out: Out = WORK / "results",
) -> None:
    """Measure predict FOLDER --url beside wrk, and write by_url.md."""
    machine = this_machine()
    with _one_line_errors():
        workload = _workload("mnist", _DATA / "photos", mnist_npz)
        found = measure_by_url(workload, _digits(mnist_npz), files=files, rounds=rounds, seconds=seconds)
    _write_page(out / "by_url.md", found.markdown(), machine)


@cli.command()
def ray_data(
    store: Annotated[Path, typer.Option(help="Store of a model for photos.", show_default=False)],
    model: Annotated[str, typer.Option(help="Model of the store.")] = "photos",
    photos: Photos = _DATA / "photos",
    files: Annotated[int, typer.Option(min=1, help="Number of files in each run.")] = 2_000,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved runs of each contestant.")] = 2,
    out: Out = WORK / "results",
) -> None:
    """Measure predict --engine ray beside Ray Data's own recipe, and write ray_data.md."""
    machine = this_machine()
    with _one_line_errors():
        pictures = sorted(photos.rglob("*.jpg"))
        found = measure_ray(ModelStore(store).newest(model), pictures, files=files, rounds=rounds)
    _write_page(out / "ray_data.md", found.markdown(), machine)


@cli.command()
def models(photos: Photos = _DATA / "photos") -> None:
    """Build the bundles of the larger networks with random weights; nothing if they are built already."""
    with _one_line_errors():
        for name in WORKLOADS[1:]:
            typer.echo(f"built: {_build(name, photos)}")


def _write_page(page: Path, tables: str, machine: Machine) -> None:
    """Write tables with the command and the machine below them, and print the page."""
    note = f"`{_command()}`, commit {machine.commit}, on {machine.cpu}, {machine.cores} cores, {machine.date}"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{tables}\n\n{note}\n", encoding="utf-8")
    typer.echo(page.read_text(encoding="utf-8"))


def _train_in_turn(
    names: Sequence[str],
    known: Sequence[str],
    seeds: Iterable[int],
    train_once: Callable[[str, int], _Run],
    write: Callable[[Sequence[_Run], Machine], None],
    line: Callable[[_Run], str],
    out: Path,
) -> None:
    """Train each with the first seed, then each with the next; write all runs after every one of them."""
    out.mkdir(parents=True, exist_ok=True)
    machine, runs = this_machine(), list[_Run]()
    with _one_line_errors():
        for name in names:
            if name.partition(accuracy_benchmark.TO)[0] not in known:
                raise BenchmarkError(f"Nothing is called '{name}'; there are: {', '.join(known)}.")
        for seed, name in itertools.product(seeds, names):
            runs.append(train_once(name, seed))
            write(runs, machine)
            typer.echo(line(runs[-1]), err=True)


def _digits(mnist_npz: Path | None) -> list[Path]:
    """Return the pictures of the workload mnist as files."""
    digits = WORK / "bulk" / "digits"
    digits.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(pictures_of_npz(mnist_npz) if mnist_npz else pictures_of_folder(_DATA)):
        (digits / f"{number:02}.png").write_bytes(data)
    return sorted(digits.glob("*.png"))


def _workload(name: str, photos: Path, mnist_npz: Path | None) -> Workload:
    if name not in WORKLOADS:
        raise BenchmarkError(f"There is no workload '{name}'; there are: {', '.join(WORKLOADS)}.")
    if name == "mnist":
        return mnist(pictures_of_npz(mnist_npz) if mnist_npz else pictures_of_folder(_DATA))
    for needed in ("lite0", "lite0-reduced") if name == "phone" else (name,):
        _build(needed, _DATA / "photos")
    made = {"mobilenet": mobilenet, "resnet50": resnet50, "lite0": lite0, "phone": phone}
    return made[name](pictures_of_folder(photos))


def _build(name: str, photos: Path) -> Path:
    built = WORK / "model_store" / name / "1"
    if not (built / "manifest.json").exists():
        for rejection in build(name, sorted(photos.glob("*.jpg"))).rejections:
            typer.echo(f"warning: {rejection}", err=True)
    return built


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def _allow_many_files() -> None:
    """Raise the limit on open files, for this process and its children: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that the contestants' processes are stopped first
    try:
        cli(prog_name="python -m benchmarks")
    except KeyboardInterrupt:
        sys.exit(130)
