"""The training command line: `python -m training fit | sweep | evaluate | compare | audit | review | folds`."""

from app.system.invocation import command_line, plain_ends

with plain_ends("training"):
    import typer

    from training.commands.audit import audit
    from training.commands.compare import compare
    from training.commands.evaluate import evaluate
    from training.commands.fit import fit
    from training.commands.folds import folds
    from training.commands.review import review
    from training.commands.sweep import sweep

    cli = typer.Typer(
        help="Train image classifiers on labelled pictures, and measure them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (fit, sweep, evaluate, compare, audit, review, folds):
        cli.command()(command)

    if __name__ == "__main__":
        cli(prog_name=command_line("training"))
