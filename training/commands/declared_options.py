"""Commands with options that their parameters, or the fields of `FitOptions`, declare with pydantic's `Field`."""

import inspect
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any

import typer
from annotated_types import Ge, Le
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from app.cli.options import help_headings, parameter, with_parameters
from app.system.home import expanded
from training.commands.errors import plain_endings
from training.declared import Declared, declared_by, read_value
from training.options import FIT_OPTIONS, FitOptions

_FIT_HEADINGS = help_headings(
    FIT_OPTIONS,
    most_used=(
        "data",
        "name",
        "preset",
        "effort",
        "model_store",
        "epochs",
        "test",
        "group_by",
        "resume",
        "require",
    ),
    first_of={
        "weights": "Network",
        "effort": "Training",
        "test": "Data",
        "calibration": "Probabilities",
        "resume": "The run",
        "about": "Publishing",
    },
)


def fit_parameters() -> list[inspect.Parameter]:
    """Return a parameter for each option of `fit`. An option that changes a preset has no default of its own."""
    return [
        _parameter(each, heading=_FIT_HEADINGS[name], follows_preset=each.by is not FitOptions)
        for name, each in FIT_OPTIONS.items()
    ]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command that calls `function` with its options as they are declared, and reports an error in one line.

    A parameter without a description is declared for Typer, and stays as it is.
    """
    parameters: list[inspect.Parameter] = []
    declared: dict[str, Declared] = {}
    for own in inspect.signature(function).parameters.values():
        if own.default is own.empty:
            info = FieldInfo.from_annotation(own.annotation)
        else:
            info = FieldInfo.from_annotated_attribute(own.annotation, own.default)
        if info.description is None:
            parameters.append(own.replace(kind=own.KEYWORD_ONLY))
        else:
            each = declared_by(function, own.name, info)
            declared[each.name] = each
            parameters.append(_parameter(each))

    @with_parameters(parameters)
    @wraps(function)
    def run(**given: Any) -> None:
        given = {name: expanded(value) for name, value in given.items()}
        with plain_endings():
            for name, each in declared.items():
                value = given.pop(name)
                if value is not None:
                    given[each.field] = read_value(each, value)
            function(**given)

    return run


def _parameter(declared: Declared, *, heading: str | None = None, follows_preset: bool = False) -> inspect.Parameter:
    info, option = declared.info, declared.option
    kind = next((part.json_schema_input_type for part in info.metadata if isinstance(part, BeforeValidator)), None)
    annotation: Any = kind or info.annotation
    default = info.default
    if follows_preset or option.chosen:
        default = None
    elif info.is_required():
        default = inspect.Parameter.empty
    elif kind is not None and default is not None:  # the default as text, as on the command line
        default = list(default) if isinstance(default, tuple) else str(default)
    if default is None:
        annotation = annotation | None
    bounds: dict[str, Any] = {}
    for part in info.metadata:
        if isinstance(part, Ge | Le) and not option.late:
            bounds |= asdict(part)
    described = typer.Option(
        *([declared.word] if default is False else []),  # a flag without its --no- form
        help=info.description,
        min=bounds.get("ge"),
        max=bounds.get("le"),
        envvar=option.variable,
        rich_help_panel=heading,
    )
    return parameter(declared.name, annotation, described, default)
