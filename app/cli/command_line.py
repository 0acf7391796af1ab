"""Command lines as tables. A command's module is imported when the command runs or its own help is shown."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer._click.shell_completion import CompletionItem
from typer.core import TyperCommand, TyperGroup

from app.system.release import release

PLAIN: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,  # Rich's table cuts the names of options at 80 columns
    "pretty_exceptions_enable": False,
}
"""Arguments of every `Typer` of this project."""


@dataclass(frozen=True)
class Listed:
    """A command in a table: `module:name` of its function or `Typer`, and its line in the list of commands."""

    target: str
    summary: str


class Command(TyperCommand):
    """A command whose help lists its options under headings: each option's `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        headings: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if each.param_type_name == "argument" else "Options"
                headings[getattr(each, "rich_help_panel", None) or usual].append(record)
        _write(headings, formatter)


class Group(TyperGroup):
    """A group whose help shows the whole first paragraph of each command's help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, (command.help or "").partition("\n\n")[0]) for name, command in self.commands.items()]
        _write({"Commands": rows}, formatter)


class _Imported(Mapping[str, Any]):
    """The commands of a table by name, each imported when it is asked for."""

    def __init__(self, table: Mapping[str, Listed]) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._table[name].target.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            group = typer.main.get_command(found)
            group.name = name
            return group
        cli = typer.Typer(**PLAIN)
        cli.command(name, cls=Command)(found)
        return typer.main.get_command(cli)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def command_line_of(headings: Mapping[str, Mapping[str, Listed]], *, about: str) -> typer.Typer:
    """Return the command line with these commands, listed under headings, and the option --version."""
    table = {name: listed for commands in headings.values() for name, listed in commands.items()}

    class Table(Group):
        def __init__(self, **given: Any) -> None:
            super().__init__(**{**given, "commands": _Imported(table)})

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            rows = {
                heading: [(name, listed.summary) for name, listed in commands.items()]
                for heading, commands in headings.items()
            }
            _write(rows, formatter)

        def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
            """Complete names from the table, without importing any command."""
            named = [
                CompletionItem(name, help=each.summary) for name, each in table.items() if name.startswith(incomplete)
            ]
            return [*named, *super(TyperGroup, self).shell_complete(ctx, incomplete)]

    cli = typer.Typer(cls=Table, help=about, **PLAIN)

    @cli.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        """Read the options before the command."""

    return cli


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"imageclass {release()}")
        raise typer.Exit


def _write(headings: Mapping[str, list[tuple[str, str]]], formatter: Any) -> None:
    for heading, rows in headings.items():
        with formatter.section(heading):
            formatter.write_dl(rows)
