"""Turn fields declared with pydantic's `Field` into command-line options, and their values back into a command line.

A field that has a description is an option: its name, type, range, default and help are those of the field.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from training.errors import OptionError


@dataclass(frozen=True)
class Option:
    """Properties of an option beyond its field's declaration, as metadata in the field's `Annotated`.

    - `name`: the option's parameter, if it is not the field's own name.
    - `variable`: the environment variable that stands for the option.
    - `repeated`: when a command that repeats a run names the option: always, if it was changed, if the command is for
      the machine that it ran on, if it is for that machine and the option was changed, or never.
    - `is_path`: name only the last part of the path, unless the command is for the machine that it ran on.
    - `chosen`: without a word for it, the command chooses a value itself.
    - `late`: report a value outside of the range as an error of the run (exit code 1), not of the usage (2).
    """

    name: str | None = None
    variable: str | None = None
    repeated: Literal["always", "changed", "here", "changed here", "never"] = "changed"
    is_path: bool = False
    chosen: bool = False
    late: bool = False


ALWAYS = Option(repeated="always")
NEVER = Option(repeated="never")
_PLAIN = Option()


def reads(parse: Callable[[str], Any], *, as_type: Any = str) -> BeforeValidator:
    """Let a field accept text, or a list of texts, and read it with `parse`, which raises OptionError.

    On a command line the field is of type `as_type`, str or list[str].
    """

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(read, value))
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(read, json_schema_input_type=as_type)


@dataclass(frozen=True)
class Declared:
    """One option, and the field of a pydantic dataclass, or the parameter of a function, that declares it."""

    name: str
    by: Any
    field: str
    info: FieldInfo

    @property
    def option(self) -> Option:
        return _option_of(self.info)

    @property
    def word(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    def words(self, value: Any, *, usual: Any, here: bool) -> list[str]:
        """Return the command-line words that set the option to `value`; empty if a command that repeats a run can omit
        them.

        `usual` is the value that the run would have without the option. An option that is repeated if changed is
        omitted only if `value` and `usual` are the field's default: another version of the program may have another
        `usual` value.
        """
        is_named = {
            "always": True,
            "changed": not value == usual == self.info.default,
            "here": here,
            "changed here": here and value != self.info.default,
            "never": False,
        }[self.option.repeated]
        if value is None or not is_named:
            return []
        match value:
            case True:
                return [self.word]
            case False:
                return [self.word.replace("--", "--no-", 1)]
            case tuple():
                return [self.word, "x".join(map(str, value))]
        return [self.word, Path(value).name if self.option.is_path and not here else str(value)]


def declared_by(declaring: Any, field: str, info: FieldInfo) -> Declared:
    """Return the option that `declaring` declares by its field or parameter of that name."""
    return Declared(_option_of(info).name or field, declaring, field, info)


def options_of(declaring: type[Any]) -> dict[str, Declared]:
    """Return the options that a pydantic dataclass declares, by name."""
    fields: dict[str, FieldInfo] = declaring.__pydantic_fields__
    found = [declared_by(declaring, field, info) for field, info in fields.items() if info.description is not None]
    return {each.name: each for each in found}


def read_value(declared: Declared, value: Any) -> Any:
    """Return the value of an option from its value on the command line. Raises OptionError."""
    info = declared.info
    kind: Any = operator.getitem(Annotated, (info.annotation, info))
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as exc:
        raise OptionError(" ".join(_sentence(declared, error) for error in exc.errors())) from exc


def fields_given(declaring: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by field, the values that a command was given for the options of `declaring`; None is no value."""
    return {each.field: given[name] for name, each in options_of(declaring).items() if given.get(name) is not None}


def _option_of(info: FieldInfo) -> Option:
    return next((each for each in info.metadata if isinstance(each, Option)), _PLAIN)


@contextmanager
def plain_range_errors(declaring: type[Any]) -> Iterator[None]:
    """Raise OptionError, naming options and values, if a value is outside of the range that `declaring` declares."""
    try:
        yield
    except ValidationError as exc:
        options = {each.field: each for each in options_of(declaring).values()}
        raise OptionError(" ".join(_sentence(options[str(error["loc"][0])], error) for error in exc.errors())) from exc


def _sentence(declared: Declared, error: Any) -> str:
    return f"{declared.word} {error['input']}: {error['msg'].replace('Input', 'it')}."
