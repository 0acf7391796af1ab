"""Report errors that a user can cause: one line on standard error, and exit code 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.errors import ImageclassError, ModelNotNamed


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report an ImageclassError in one line, and end the command with exit code 1."""
    try:
        yield
    except ImageclassError as exc:
        advice = " Name one with --model, or set IMAGECLASS_MODEL." if isinstance(exc, ModelNotNamed) else ""
        typer.echo(f"error: {exc}{advice}", err=True)
        raise typer.Exit(1) from exc
