"""The command `python -m app serve`."""

import inspect
from typing import Any

import structlog
import typer
from pydantic import BeforeValidator

from app.cli.errors import one_line_errors
from app.cli.options import help_headings, parameter, with_parameters
from app.errors import ImageclassError
from app.settings import Settings, allowed_range, is_secret

_HEADINGS = help_headings(
    Settings.model_fields,
    most_used=(
        "host",
        "port",
        "workers",
        "model_store",
        "model",
        "engine",
        "request_timeout_s",
        "api_keys_file",
        "access_log",
        "log_format",
    ),
    first_of={
        "host": "Addresses and workers",
        "model_store": "Models",
        "min_probability": "Answers",
        "engine": "Inference",
        "max_pending": "Limits and timeouts",
        "shutdown_delay_s": "Shutdown and new versions",
        "api_keys": "Access",
        "access_log": "Logs",
    },
)


def _settings() -> list[inspect.Parameter]:
    """Return a parameter for each setting, with its range and default, from the settings' own declarations."""
    parameters = []
    for name, field in Settings.model_fields.items():
        if is_secret(name):
            continue
        allowed = allowed_range(name)
        notes = [*([allowed] if allowed and "|" not in allowed else []), f"default: {field.default}"]
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=f"{field.description} [{'; '.join(notes)}]",
            show_default=False,
            rich_help_panel=_HEADINGS[name],
        )
        read = (each.json_schema_input_type for each in field.metadata if isinstance(each, BeforeValidator))
        parameters.append(parameter(name, next(read, field.annotation), option))
    return parameters


@with_parameters(_settings())
def serve(**given: Any) -> None:
    """Serve the models of the store over HTTP.

    Every option is also an environment variable: --max-pending is IMAGECLASS_MAX_PENDING. IMAGECLASS_API_KEYS is only a
    variable, because other users could read it from the command line.
    """
    with one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    from app.process.server import serve as run  # uvicorn and the rest: not for --help

    try:
        code = run(settings)
    except ImageclassError as exc:
        structlog.stdlib.get_logger(__name__).error("cannot start", reason=str(exc), code=exc.code)
        raise typer.Exit(1) from exc
    raise typer.Exit(code)
