"""The command `python -m app predict`."""

import os
import sys
from typing import Annotated, Literal

import typer

from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import log_errors_only
from app.engines.registry import EngineChoice
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
        EngineChoice | None,
        typer.Option(help="What runs the model. [IMAGECLASS_ENGINE]", show_default=False),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many labels for each picture. [default: 3; csv: 1; jsonl: all]", show_default=False
        ),
    ] = None,
    output: Annotated[Literal["table", "jsonl", "csv"], typer.Option(help="What to print.")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output jsonl.")] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Requests under way at once, of up to 64 pictures.")
    ] = 4,
    retries: Annotated[int, typer.Option(min=0, help="Retries if the service is busy or not there.")] = 4,
) -> None:
    """Classify pictures, here or by a running service.

    One line for each, in order, as soon as it is there. A picture that cannot be used is a line on standard error, and
    exit code 1 at the end. A service that asks for an API key gets IMAGECLASS_API_KEY.
    """
    from app.cli.predict.by_service import service_at  # HTTPX: not for the service
    from app.cli.predict.outputs import open_output
    from app.cli.predict.pictures import STANDARD_INPUT
    from app.cli.predict.pipeline import predict_all

    files, files_from = expanded(files), expanded(files_from)
    if not files and files_from is None:
        raise typer.BadParameter("name pictures, or give --files-from.", param_hint="FILES")
    if files_from == STANDARD_INPUT and files and STANDARD_INPUT in files:
        raise typer.BadParameter("standard input is one picture or a list of names, not both.", param_hint="FILES")
    given = {"model": model, "model_store": model_store, "engine": engine}
    with one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        written = open_output("jsonl" if as_json else output, sys.stdout, top_k=top_k)
        if url is not None:
            road = service_at(
                url,
                api_key=os.environ.get(API_KEY_VARIABLE),
                model=settings.model,
                top_k=written.top_k,
                retries=retries,
                at_once=concurrency,
            )
        else:
            from app.cli.predict.here import model_here  # the engines and the rest: not to ask a service

            log_errors_only()
            road = model_here(settings, top_k=written.top_k)
        failed = predict_all(files or [], files_from, road, written, at_once=concurrency)
    if failed:
        raise typer.Exit(1)
