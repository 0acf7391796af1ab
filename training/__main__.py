"""The training command line: `python -m training fit | sweep | evaluate | compare | audit | folds`."""

import sys

import typer

from training.commands.audit import audit
from training.commands.compare import compare
from training.commands.errors import INTERRUPTED
from training.commands.evaluate import evaluate
from training.commands.fit import fit
from training.commands.folds import folds
from training.commands.sweep import sweep

cli = typer.Typer(
    help="Train image classifiers on labelled pictures, and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (fit, sweep, evaluate, compare, audit, folds):
    cli.command()(command)

if __name__ == "__main__":
    try:
        cli(prog_name="python -m training")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
