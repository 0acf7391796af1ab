"""Options that commands share, and options that fields declare: of the settings, or of a training."""

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

ModelStoreOption = Annotated[
    str | None,
    typer.Option(
        "--model-store",
        help="Folder of bundles, or a bucket such as s3://BUCKET/PREFIX. [IMAGECLASS_MODEL_STORE]",
        show_default=False,
    ),
]


def parameter(name: str, annotation: Any, described: Any, default: Any = None) -> inspect.Parameter:
    """Return a command's parameter that Typer shows as `described`, a `typer.Option`."""
    annotated = operator.getitem(Annotated, (annotation, described))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotated)


def help_headings(names: Iterable[str], *, most_used: Iterable[str], first_of: Mapping[str, str]) -> dict[str, str]:
    """Return, for each option of a command that has many, its heading in the help.

    `first_of` maps the first option of each heading to the heading; the options after it share it.
    """
    headings, heading, used = {}, "Options", set(most_used)
    for name in names:
        heading = first_of.get(name, heading)
        headings[name] = "Most used" if name in used else heading
    return headings


def with_parameters(parameters: Iterable[inspect.Parameter]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes Typer see these parameters as the command's own."""
    signature = inspect.Signature(list(parameters))

    def given_to(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        return command

    return given_to
