"""End every command of `python -m training` with one line and an exit code if it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from app.cli.errors import one_line_errors
from app.system.invocation import INTERRUPTED
from training.errors import ChiefPublishes, OptionError


@contextmanager
def plain_endings() -> Iterator[None]:
    """Report an error that a user can cause in one line, and end with exit code 1; after Ctrl-C, end with 130."""
    with one_line_errors():
        try:
            yield
        except ChiefPublishes as exc:
            typer.echo(str(exc), err=True)
            raise typer.Exit(0) from exc
        except MemoryError as exc:
            raise OptionError("This machine has too little memory. Give a smaller --size or --batch-size.") from exc
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
