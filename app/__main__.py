"""The service's command line: `python -m app serve | predict | bench | models`."""

import inspect
import operator
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import structlog
import typer
from rich.console import Console
from rich.table import Table

from app.engines.registry import EngineChoice
from app.errors import BundleError, BundleNotFound, ImageclassError, StoreNotWritable
from app.settings import API_KEY_VARIABLE, Settings, allowed_range, is_secret

if TYPE_CHECKING:
    from app.contract.store import ModelStore

cli = typer.Typer(
    help="Serve image classifiers, ask them, and look at what a model store holds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_cli = typer.Typer(help="Look at what the model store holds, and say what is to be served.", no_args_is_help=True)
cli.add_typer(models_cli, name="models")

_WIDTH_IN_A_PIPE = 160

ModelStoreOption = Annotated[
    Path | None, typer.Option("--model-store", help="Folder of bundles. [IMAGECLASS_MODEL_STORE]", show_default=False)
]


ModelArgument = Annotated[str, typer.Argument(help="The model.", show_default=False)]
VersionOption = Annotated[int | None, typer.Option(help="Which version; the newest where none is named.")]
EngineOption = Annotated[EngineChoice, typer.Option(help="What to run the golden pictures on.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except ImageclassError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each setting, with its range and default, from the settings' own declarations."""
    parameters = []
    for name, field in Settings.model_fields.items():
        if is_secret(name):
            continue
        allowed = allowed_range(name)
        notes = [*([allowed] if allowed and "|" not in allowed else []), f"default: {field.default}"]
        option = typer.Option(
            f"--{name.replace('_', '-')}", help=f"{field.description} [{'; '.join(notes)}]", show_default=False
        )
        annotation = operator.getitem(Annotated, (field.annotation, option))
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


@cli.command()
@_with_settings
def serve(**given: Any) -> None:
    """Serve the models of the store over HTTP.

    Every option is also an environment variable: --max-pending is IMAGECLASS_MAX_PENDING. IMAGECLASS_API_KEYS is one
    only: other users could read it from the command line.
    """
    with _one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    from app.process.server import serve as run  # uvicorn and the rest: not for --help

    try:
        code = run(settings)
    except ImageclassError as exc:
        structlog.stdlib.get_logger(__name__).error("cannot start", reason=str(exc), code=exc.code)
        raise typer.Exit(1) from exc
    raise typer.Exit(code)


@cli.command()
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
    retries: Annotated[int, typer.Option(min=0, help="Retries where the service is busy or not there.")] = 4,
) -> None:
    """Classify pictures, here or by a running service.

    One line for each, in order, as soon as it is there. A picture that cannot be used is a line on standard error, and
    exit code 1 at the end. A service that asks for an API key gets IMAGECLASS_API_KEY.
    """
    from app.cli.predict.command import predict_all, service_at  # HTTPX: not for the service
    from app.cli.predict.outputs import open_output
    from app.cli.predict.pictures import STANDARD_INPUT

    if not files and files_from is None:
        raise typer.BadParameter("name pictures, or give --files-from.", param_hint="FILES")
    if files_from == STANDARD_INPUT and files and STANDARD_INPUT in files:
        raise typer.BadParameter("standard input is one picture or a list of names, not both.", param_hint="FILES")
    given = {"model": model, "model_store": model_store, "engine": engine}
    with _one_line_errors():
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

            _log_errors_only()
            road = model_here(settings, top_k=written.top_k)
        failed = predict_all(files or [], files_from, road, written, at_once=concurrency)
    if failed:
        raise typer.Exit(1)


def _log_errors_only() -> None:
    """Keep the log to what is wrong, and out of the output."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE).print(table)


@cli.command()
def bench(
    model: Annotated[
        str | None, typer.Option(help="Which model; all where none is named. [IMAGECLASS_MODEL]", show_default=False)
    ] = None,
    model_store: ModelStoreOption = None,
    seconds: Annotated[float, typer.Option(min=0.001, max=3600, help="How long to classify golden pictures.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object for each model.")] = False,
) -> None:
    """Load the model as a worker would, and show what was chosen for it and how fast it is without HTTP.

    Every setting counts, from its environment variable: IMAGECLASS_WORKERS, IMAGECLASS_PRECISION and so on.
    """
    given = {"model": model, "model_store": model_store}
    with _one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        found = _measure_here(settings, seconds)
    for measured in found:
        if as_json:
            typer.echo(orjson.dumps(measured))
        else:
            _print(_bench_table(measured))


def _measure_here(settings: Settings, seconds: float) -> list[dict[str, Any]]:
    from app.api.routes.models import serving
    from app.main import load_from
    from app.process.server import with_workers
    from app.serving.measurement import measure

    _log_errors_only()
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


@models_cli.command("list")
def models_list(model_store: ModelStoreOption = None) -> None:
    """List every model and version of the store."""
    from app.contract.bundle import read_manifest

    table = Table("model", "version", "labels", "test accuracy", "created", "pinned")
    with _one_line_errors():
        store = _store(model_store)
        for name in store.names():
            pinned = _pinned(store, name)
            for version in store.versions(name):
                try:
                    manifest = read_manifest(store.path(name, version))
                except ImageclassError as exc:
                    typer.echo(f"error: {exc}", err=True)
                    continue
                accuracy = manifest.metrics.get("test.accuracy")
                table.add_row(
                    name,
                    str(version),
                    str(len(manifest.labels)),
                    "" if accuracy is None else f"{accuracy:.2%}",
                    f"{manifest.created_at:%Y-%m-%d %H:%M}",
                    "pinned" if version == pinned else "",
                )
    _print(table)


@models_cli.command("show")
def models_show(name: ModelArgument, version: VersionOption = None, model_store: ModelStoreOption = None) -> None:
    """Print a model's card."""
    from app.contract.bundle import open_bundle

    with _one_line_errors():
        store = _store(model_store)
        bundle = open_bundle(_bundle_path(store, name, version))
        typer.echo(bundle.card())
        typer.echo(_pin_sentence(store, name, bundle.version), err=True)


@models_cli.command("verify")
def models_verify(
    name: ModelArgument,
    version: VersionOption = None,
    engine: EngineOption = "auto",
    model_store: ModelStoreOption = None,
) -> None:
    """Check a bundle as the service does at load: digests, signature, golden pictures."""
    from app.engines.loading import load_model

    with _one_line_errors():
        store = _store(model_store)
        loaded = load_model(_bundle_path(store, name, version), engine=engine)
        typer.echo(
            f"{loaded.bundle.name} version {loaded.bundle.version} is sound: {loaded.proof.pictures} golden pictures "
            f"on {loaded.engine.name}, probabilities within {loaded.proof.max_probability_difference:.1e} of "
            f"training's. {_pin_sentence(store, name, loaded.bundle.version)}"
        )


@models_cli.command("pin")
def models_pin(
    name: ModelArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version to serve.", show_default=False)],
    model_store: ModelStoreOption = None,
) -> None:
    """Have one version served, whatever newer ones there are. It is checked first, as the service does at load."""
    with _one_line_errors():
        _pin(_store(model_store), name, version)


@models_cli.command("unpin")
def models_unpin(name: ModelArgument, model_store: ModelStoreOption = None) -> None:
    """Have the newest version served again."""
    with _one_line_errors():
        store = _store(model_store)
        newest = store.newest(name).name
        with _plain_write_errors(store, name):
            store.unpin(name)
    typer.echo(
        f"{name} is not pinned: the newest version that passes its check is served, which is {newest} if it does."
    )


@models_cli.command("rollback")
def models_rollback(name: ModelArgument, model_store: ModelStoreOption = None) -> None:
    """Pin the version below the one that is to be served now: the nearest one that passes its check."""
    with _one_line_errors():
        store = _store(model_store)
        store.newest(name)
        served = store.pinned(name)
        if served is None:
            served = next((version for version in reversed(store.versions(name)) if _is_sound(store, name, version)), 0)
        below = [version for version in reversed(store.versions(name)) if version < served]
        target = next((version for version in below if _is_sound(store, name, version)), None)
        if target is None:
            what = f"version {served}" if served else "any, as none passes its check"
            raise BundleNotFound(
                f"{name} has no version below {what} that passes its check, so there is none to roll back to."
            )
        _pin(store, name, target)


def _pin(store: "ModelStore", name: str, version: int) -> None:
    from app.engines.loading import load_model

    store.newest(name)  # says which models there are, where this one is not
    if version in store.versions(name):
        load_model(store.path(name, version)).engine.close()
    with _plain_write_errors(store, name):
        store.pin(name, version)
    typer.echo(f"{name} is pinned to version {version}. A running service follows within seconds.")


def _is_sound(store: "ModelStore", name: str, version: int) -> bool:
    from app.engines.loading import load_model

    try:
        load_model(store.path(name, version)).engine.close()
    except BundleError as exc:
        typer.echo(f"passed over: {exc}", err=True)
        return False
    return True


@contextmanager
def _plain_write_errors(store: "ModelStore", name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        folder = store.root / name
        raise StoreNotWritable(
            f"{folder} cannot be written: {exc.strerror}. Run this as its owner, and where it is mounted for writing."
        ) from exc


def _pinned(store: "ModelStore", name: str) -> int | None:
    """Return the pinned version; what is wrong with the pin is said, and no reason to fail."""
    try:
        return store.pinned(name)
    except BundleNotFound as exc:
        typer.echo(f"error: {exc}", err=True)
        return None


def _pin_sentence(store: "ModelStore", name: str, version: int) -> str:
    pinned = _pinned(store, name)
    if pinned is None:
        return "No version is pinned."
    return "It is pinned." if pinned == version else f"Version {pinned} is pinned."


def _store(given: Path | None) -> "ModelStore":
    from app.contract.store import ModelStore

    return ModelStore(given if given is not None else Settings.load().model_store)


def _bundle_path(store: "ModelStore", name: str, version: int | None) -> Path:
    return store.newest(name) if version is None else store.path(name, version)


if __name__ == "__main__":
    try:
        cli(prog_name="python -m app")
    except KeyboardInterrupt:
        sys.exit(130)
