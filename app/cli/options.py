"""Options that commands share, and options that fields declare: of the settings, or of a training."""

import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

ModelStoreOption = Annotated[
    str | None,
    typer.Option(
        "--model-store", help="Folder of bundles, or a bucket: s3://… [IMAGECLASS_MODEL_STORE]", show_default=False
    ),
]


def parameter(name: str, annotation: Any, described: Any, default: Any = None) -> inspect.Parameter:
    """Return a command's parameter that Typer shows as `described`, a `typer.Option`."""
    annotated = operator.getitem(Annotated, (annotation, described))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotated)


def with_parameters(parameters: Iterable[inspect.Parameter]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that has Typer see these parameters as the command's own."""
    signature = inspect.Signature(list(parameters))

    def given_to(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        return command

    return given_to
