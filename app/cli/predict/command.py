"""The command `python -m app predict`."""

import os
import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import log_errors_only
from app.cli.predict.options import EngineOrRay, Output, PartFormat, PrintFormat, Service
from app.contract.answer_options import AnswerOptions, Detail, SetMethod
from app.settings import API_KEY_VARIABLE, Settings
from app.system.home import expanded


def predict(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, folders, or patterns such as 'a/**/*.png'; - reads one picture from standard input.",
            show_default=False,
        ),
    ] = None,
    files_from: Annotated[
        str | None, typer.Option(help="Read names from this file, one per line; - reads them from standard input.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Use the service at this address instead of loading the model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model. [IMAGECLASS_MODEL]", show_default=False)] = None,
    model_store: ModelStoreOption = None,
    engine: Annotated[
        EngineOrRay | None,
        typer.Option(
            help="Inference engine; ray processes --shards on a Ray cluster. [IMAGECLASS_ENGINE]", show_default=False
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of labels for each picture. (default: 3; csv: 1; jsonl: all)", show_default=False
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Mark answers below this probability as unsure.", show_default=False),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(max=0.5, help="Mark unfamiliar pictures, at this false-alarm rate.", show_default=False),
    ] = None,
    set_error: Annotated[
        float | None,
        typer.Option(
            "--set",
            max=1,
            help="Add a set of labels that misses the true label for this share of pictures.",
            show_default=False,
        ),
    ] = None,
    set_method: Annotated[
        SetMethod, typer.Option(help="Method of --set: lac gives the smallest sets on average, aps never an empty one.")
    ] = "lac",
    details: Annotated[
        list[str] | None,
        typer.Option(
            metavar="familiarity|neighbours", help="Add this to --output jsonl; may be repeated.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option(help="Format to print: table, jsonl or csv; with --shards to write: parquet, jsonl or csv."),
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Short for --output jsonl.")] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Concurrent requests, of up to 64 pictures each.")
    ] = 4,
    retries: Annotated[int, typer.Option(min=0, help="Retries if the service is busy or unreachable.")] = 4,
    shards: Annotated[
        Path | None,
        typer.Option(help="Write the answers as part files into this folder, using all cores.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the job in the folder of --shards, if there is one.")
    ] = False,
    shard_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Pictures per part file of --shards.")] = 1024,
    address: Annotated[
        str,
        typer.Option(help="Ray cluster for --engine ray; local starts one on this machine, auto finds a running one."),
    ] = "local",
    features: Annotated[
        bool, typer.Option("--features", help="Write the network's features instead of probabilities; needs --shards.")
    ] = False,
) -> None:
    """Classify pictures, here or by a running service.

    Print one line for each picture, in order. A picture that cannot be used is a line on standard error, and the exit
    code is then 1. IMAGECLASS_API_KEY is sent to the service as the API key.

    With --shards, rows are written to part files instead, and a picture that cannot be used is a row with the reason.
    Resume an interrupted job with --resume.
    """
    files, files_from, shards = expanded(files or []), expanded(files_from), expanded(shards)
    if not files and files_from is None:
        raise typer.BadParameter("name pictures, or give --files-from.", param_hint="FILES")
    shown: Output = "jsonl" if as_json else output
    options = AnswerOptions(top_k, min_probability, false_alarms, _details(details or []), set_error, set_method)
    if details and (shown != "jsonl" or shards is not None):
        raise typer.BadParameter("they need --output jsonl, without --shards.", param_hint="--details")
    for option, rate in (("--false-alarms", false_alarms), ("--set", set_error)):
        if rate is not None and not 0 < rate < 1:
            raise typer.BadParameter("it is a share of pictures between 0 and 1, such as 0.05.", param_hint=option)
    on_ray = engine == "ray"
    given = {"model": model, "model_store": model_store, "engine": None if on_ray else engine}
    with one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        service = None if url is None else Service(url, os.environ.get(API_KEY_VARIABLE), retries, concurrency)
        if on_ray and (shards is None or service is not None):
            raise typer.BadParameter("ray needs --shards, and cannot be combined with --url.", param_hint="--engine")
        if shards is None:
            if resume or features or shown == "parquet":
                option = "--resume" if resume else "--features" if features else "--output parquet"
                raise typer.BadParameter(f"{option} needs a folder for the part files.", param_hint="--shards")
            failed = _print(files, files_from, shown, settings, service, options, at_once=concurrency)
        else:
            if shown == "table":
                raise typer.BadParameter("with --shards, the format is parquet, csv or jsonl.", param_hint="--output")
            if features and (service is not None or options.given()):
                raise typer.BadParameter(
                    "it cannot be combined with --url, --top-k or other options about answers.",
                    param_hint="--features",
                )
            failed = _write_shards(
                files, files_from, shards, shown, settings, service, options,
                resume=resume, shard_size=shard_size, features=features,
                ray_address=address if on_ray else None,
            )  # fmt: skip
    if failed:
        raise typer.Exit(1)


def _details(asked: list[str]) -> tuple[Detail, ...]:
    known: tuple[Detail, ...] = get_args(Detail)
    for each in asked:
        if each not in known:
            raise typer.BadParameter(f"'{each}' is not one of {', '.join(known)}.", param_hint="--details")
    return tuple(each for each in known if each in asked)


def _print(
    files: list[str],
    files_from: str | None,
    output: PrintFormat,
    settings: Settings,
    service: Service | None,
    options: AnswerOptions,
    *,
    at_once: int,
) -> int:
    from app.cli.predict.outputs import open_output
    from app.cli.predict.pictures import STANDARD_INPUT
    from app.cli.predict.pipeline import predict_all

    if files_from == STANDARD_INPUT and STANDARD_INPUT in files:
        raise typer.BadParameter("standard input can be one picture or a list of names, not both.", param_hint="FILES")
    written = open_output(output, sys.stdout, options)
    if service is not None:
        from app.cli.predict.by_service import service_at  # HTTPX: not for the service

        opened = service_at(service, model=settings.model, options=written.options)
    else:
        from app.cli.predict.here import model_here  # the engines and the rest: not to ask a service

        log_errors_only()
        opened = model_here(settings, written.options)
    return predict_all(files, files_from, opened, written, at_once=at_once)


def _write_shards(
    files: list[str],
    files_from: str | None,
    folder: Path,
    output: PartFormat,
    settings: Settings,
    service: Service | None,
    options: AnswerOptions,
    *,
    resume: bool,
    shard_size: int,
    features: bool,
    ray_address: str | None,
) -> int:
    from app.cli.predict.bulk.start import Job, write_shards_by_service, write_shards_here
    from app.cli.predict.pictures import STANDARD_INPUT

    if STANDARD_INPUT in (files_from, *files):
        raise typer.BadParameter("with --shards, the names are read twice: give a file, not -.", param_hint="FILES")
    job = Job(files, files_from, folder, resume, output, options, features, shard_size)
    if service is not None:
        return write_shards_by_service(job, settings, service)
    log_errors_only()
    return write_shards_here(job, settings, ray_address=ray_address)
