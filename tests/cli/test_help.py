"""Every command's help fits a terminal of 80 columns, and names every option whole."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app.__main__ import cli as app
from imageclass.commands import cli as imageclass
from training.__main__ import cli as training

LINES = {"app": app, "training": training, "imageclass": imageclass}
MOST_USED = 10


def commands(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words of every command below a group, and the command."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield (*before, name), command
        if hasattr(command, "list_commands"):
            yield from commands(command, *before, name)


def shown(cli: typer.Typer, *words: str) -> str:
    done = CliRunner().invoke(cli, [*words, "--help"], env={"COLUMNS": "80"}, prog_name="imageclass")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    return done.stdout


def test_help_fits_80_columns_and_names_every_option_whole() -> None:
    seen = []
    for words, command in commands(typer.main.get_command(imageclass)):
        help_ = shown(imageclass, *words)
        for each in command.params:
            for name in [*each.opts, *each.secondary_opts]:
                assert name in help_.replace(",", " ").split(), (words, name)
        seen.append(words)
    assert len(seen) > 20


@pytest.mark.parametrize("line", LINES)
def test_the_list_of_commands_fits_80_columns_a_line_each(line: str) -> None:
    lines = shown(LINES[line]).splitlines()
    for name in typer.main.get_command(LINES[line]).list_commands(None):  # type: ignore[attr-defined]
        (found,) = [each for each in lines if each.startswith(f"  {name} ")]
        assert found.endswith(".")


def test_imageclass_has_every_command_of_both_halves_and_the_most_used_first() -> None:
    names = list(typer.main.get_command(imageclass).list_commands(None))  # type: ignore[attr-defined]
    halves = {name for half in (app, training) for name in typer.main.get_command(half).list_commands(None)}  # type: ignore[attr-defined]
    assert {*names} == {*halves, "completion"}
    first, _, more = shown(imageclass).partition("Commands:\n")[2].partition("\nMore commands:\n")
    assert len(first.splitlines()) == MOST_USED
    assert len(more.splitlines()) == len(names) - MOST_USED


@pytest.mark.parametrize("command", ["fit", "serve"])
def test_a_command_of_many_options_has_the_ten_most_used_first(command: str) -> None:
    sections = shown(imageclass, command).split("\n\n")
    (used,) = [section for section in sections if section.startswith("Most used:\n")]
    assert sum(line.startswith("  --") for line in used.splitlines()) == MOST_USED
    others = sections[sections.index(used) + 1 :]
    assert len(others) >= 6
    assert all(section.splitlines()[0].endswith(":") for section in others)
    assert others[-1] == "Options:\n  --help  Show this message and exit.\n"
