"""The service's command line: `python -m app serve | predict | models | explain | bench`."""

from app.system.invocation import command_line, plain_ends

with plain_ends():
    from app.cli.command_line import command_line_of
    from app.cli.commands import COMMANDS

    cli = command_line_of(
        {"Commands": COMMANDS}, about="Serve image classifiers, classify pictures, and manage the model store."
    )

    if __name__ == "__main__":
        cli(prog_name=command_line("app"))
