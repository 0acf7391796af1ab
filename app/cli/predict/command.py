"""The command `python -m app predict`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import log_errors_only
from app.cli.predict.options import EngineOrRay, Output, PartFormat, PrintFormat, Service
from app.settings import API_KEY_VARIABLE, Settings
from app.system.home import expanded


def predict(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, folders, patterns such as 'a/**/*.png'; - is one picture on standard input.",
            show_default=False,
        ),
    ] = None,
    files_from: Annotated[
        str | None, typer.Option(help="Take names from this file, one a line; - is standard input.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Ask the service at this address instead of loading the model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Which model. [IMAGECLASS_MODEL]", show_default=False)] = None,
    model_store: ModelStoreOption = None,
    engine: Annotated[
        EngineOrRay | None,
        typer.Option(
            help="What runs the model. [IMAGECLASS_ENGINE] ray works on --shards in a Ray cluster.", show_default=False
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many labels for each picture. [default: 3; csv: 1; jsonl: all]", show_default=False
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option(help="What to print, or with --shards to write: csv, jsonl or parquet."),
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output jsonl.")] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Requests under way at once, of up to 64 pictures.")
    ] = 4,
    retries: Annotated[int, typer.Option(min=0, help="Retries if the service is busy or not there.")] = 4,
    shards: Annotated[
        Path | None,
        typer.Option(help="Write the rows into part files in this folder, on all cores.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the job in the folder of --shards, if there is one.")
    ] = False,
    shard_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Pictures in each part of --shards.")] = 1024,
    address: Annotated[
        str, typer.Option(help="The Ray cluster of --engine ray; local starts one here, auto finds the one that runs.")
    ] = "local",
    features: Annotated[
        bool, typer.Option("--features", help="Write the network's features to --shards instead of probabilities.")
    ] = False,
) -> None:
    """Classify pictures, here or by a running service.

    One line for each, in order, as soon as it is there. A picture that cannot be used is a line on standard error, and
    exit code 1 at the end. A service that asks for an API key gets IMAGECLASS_API_KEY.

    With --shards, rows are written to part files instead; what cannot be used is a row with its reason. A job that ends
    early goes on with --resume.
    """
    files, files_from, shards = expanded(files or []), expanded(files_from), expanded(shards)
    if not files and files_from is None:
        raise typer.BadParameter("name pictures, or give --files-from.", param_hint="FILES")
    shown: Output = "jsonl" if as_json else output
    on_ray = engine == "ray"
    given = {"model": model, "model_store": model_store, "engine": None if on_ray else engine}
    with one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        service = None if url is None else Service(url, os.environ.get(API_KEY_VARIABLE), retries, concurrency)
        if on_ray and (shards is None or service is not None):
            raise typer.BadParameter("ray needs --shards, and does not go with --url.", param_hint="--engine")
        if shards is None:
            if resume or features or shown == "parquet":
                option = "--resume" if resume else "--features" if features else "--output parquet"
                raise typer.BadParameter(f"{option} needs the folder of the parts.", param_hint="--shards")
            failed = _print(files, files_from, shown, settings, service, top_k=top_k, at_once=concurrency)
        else:
            if shown == "table":
                raise typer.BadParameter("with --shards it is parquet, csv or jsonl.", param_hint="--output")
            if features and (service is not None or top_k is not None):
                raise typer.BadParameter("it goes with neither --url nor --top-k.", param_hint="--features")
            failed = _write_shards(
                files, files_from, shards, shown, settings, service,
                resume=resume, shard_size=shard_size, top_k=top_k, features=features,
                ray_address=address if on_ray else None,
            )  # fmt: skip
    if failed:
        raise typer.Exit(1)


def _print(
    files: list[str],
    files_from: str | None,
    output: PrintFormat,
    settings: Settings,
    service: Service | None,
    *,
    top_k: int | None,
    at_once: int,
) -> int:
    from app.cli.predict.outputs import open_output
    from app.cli.predict.pictures import STANDARD_INPUT
    from app.cli.predict.pipeline import predict_all

    if files_from == STANDARD_INPUT and STANDARD_INPUT in files:
        raise typer.BadParameter("standard input is one picture or a list of names, not both.", param_hint="FILES")
    written = open_output(output, sys.stdout, top_k=top_k)
    if service is not None:
        from app.cli.predict.by_service import service_at  # HTTPX: not for the service

        road = service_at(service, model=settings.model, top_k=written.top_k)
    else:
        from app.cli.predict.here import model_here  # the engines and the rest: not to ask a service

        log_errors_only()
        road = model_here(settings, top_k=written.top_k)
    return predict_all(files, files_from, road, written, at_once=at_once)


def _write_shards(
    files: list[str],
    files_from: str | None,
    folder: Path,
    output: PartFormat,
    settings: Settings,
    service: Service | None,
    *,
    resume: bool,
    shard_size: int,
    top_k: int | None,
    features: bool,
    ray_address: str | None,
) -> int:
    from app.cli.predict.bulk.start import Wish, write_shards_by_service, write_shards_here
    from app.cli.predict.pictures import STANDARD_INPUT

    if STANDARD_INPUT in (files_from, *files):
        raise typer.BadParameter("with --shards names are read twice: name files, not -.", param_hint="FILES")
    wish = Wish(files, files_from, folder, resume, output, top_k, features, shard_size)
    if service is not None:
        return write_shards_by_service(wish, settings, service)
    log_errors_only()
    return write_shards_here(wish, settings, ray_address=ray_address)
