"""The command `python -m app bench`."""

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import log_errors_only, print_table
from app.settings import Settings


def bench(
    model: Annotated[
        str | None, typer.Option(help="Name of the model. [IMAGECLASS_MODEL; default: all]", show_default=False)
    ] = None,
    model_store: ModelStoreOption = None,
    seconds: Annotated[
        float, typer.Option(min=0.001, max=3600, help="Seconds of measurement on golden pictures.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object for each model.")] = False,
) -> None:
    """Load the model as a worker would, and show its tuning and its speed without HTTP.

    All settings are read from the environment: IMAGECLASS_WORKERS, IMAGECLASS_PRECISION and so on.
    """
    given = {"model": model, "model_store": model_store}
    with one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        found = _measure_here(settings, seconds)
    for measured in found:
        if as_json:
            typer.echo(orjson.dumps(measured))
        else:
            print_table(_bench_table(measured))


def _measure_here(settings: Settings, seconds: float) -> list[dict[str, Any]]:
    from app.api.routes.models import serving
    from app.main import load_from
    from app.process.server import with_workers
    from app.serving.measurement import measure

    log_errors_only()
    settings = with_workers(settings)
    found = []
    for model in load_from(settings, only=settings.model).models:
        measured = measure(model, seconds=seconds)
        decode_us = sorted(round(taken * 1e6, 1) for taken in measured.decode_s)
        found.append(
            {
                "model": {"name": model.loaded.bundle.name, "version": model.loaded.bundle.version},
                "workers": settings.workers,
                "serving": serving(model.loaded, model.tuning),
                "decode_microseconds": {
                    "min": decode_us[0],
                    "median": decode_us[len(decode_us) // 2],
                    "max": decode_us[-1],
                },
                "batch_size": measured.batch_size,
                "pictures_per_second": round(measured.pictures_per_s, 1),
            }
        )
        model.loaded.engine.close()
    return found


def _bench_table(found: dict[str, Any]) -> Table:
    serving, decode = found["serving"], found["decode_microseconds"]
    table = Table("what", "value", "why", title=f"{found['model']['name']} version {found['model']['version']}")
    table.add_row("engine", serving["engine"], serving["engine_reason"])
    table.add_row("precision", serving["precision"], serving["precision_reason"])
    table.add_row("workers", str(found["workers"]), "this is one of them, alone")
    table.add_row("threads", str(serving["threads"]), "cores that one inference may use")
    table.add_row("batches run in", f"the {serving['inference']}".replace("the thread", "a thread"), "")
    for size, milliseconds in serving["batch_milliseconds"].items():
        table.add_row(
            f"batch of {size}", f"{milliseconds:.3f} ms", f"{1000 * int(size) / milliseconds:,.0f} pictures/s"
        )
    table.add_row("decoded without a thread", f"up to {serving['inline_decode_pixels']:,} pixels", "")
    table.add_row(
        "decoding", f"{decode['median']:.0f} µs", f"golden pictures, {decode['min']:.0f} to {decode['max']:.0f}"
    )
    rate, size = found["pictures_per_second"], found["batch_size"]
    table.add_row("one worker", f"{rate:,.0f} pictures/s", f"decoding and inference in batches of {size}, no HTTP")
    return table
