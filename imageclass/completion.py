"""Shell completion, by Typer: at each Tab, the shell calls `imageclass` with the text to complete in a variable."""

import os
from typing import Annotated, Literal

import typer
from typer.completion import get_completion_inspect_parameters, shell_complete

from app.system.invocation import SCRIPT

COMPLETION_VARIABLE = "_IMAGECLASS_COMPLETE"


def prepare_completion() -> None:
    """Have Typer know its shells if a shell asks for completions. It registers them with its own options."""
    if COMPLETION_VARIABLE in os.environ:
        get_completion_inspect_parameters()


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Your shell.", show_default=False)],
) -> None:
    """Print the script with which a shell completes commands, options and their values.

    For this session: source <(imageclass completion bash). For every one: add that line to ~/.bashrc, or to ~/.zshrc
    with zsh; with fish, imageclass completion fish > ~/.config/fish/completions/imageclass.fish.
    """
    get_completion_inspect_parameters()
    from imageclass.commands import cli

    raise typer.Exit(shell_complete(typer.main.get_command(cli), {}, SCRIPT, COMPLETION_VARIABLE, f"source_{shell}"))
