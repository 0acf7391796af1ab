"""The training command line: `python -m training fit | evaluate | audit | review | compare | sweep | folds`."""

from app.system.invocation import command_line, plain_ends

with plain_ends("training"):
    from app.cli.command_line import command_line_of
    from training.commands.table import COMMANDS

    cli = command_line_of(
        {"Commands": COMMANDS}, about="Train image classifiers on labelled pictures, and evaluate them."
    )

    if __name__ == "__main__":
        cli(prog_name=command_line("training"))
