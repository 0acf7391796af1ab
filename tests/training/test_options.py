"""Every option of `fit` comes from the field that declares it."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator
from typer.main import get_command
from typer.testing import CliRunner

from training.__main__ import cli
from training.data.folds import Fold
from training.declared import Declared
from training.model.layers import Backbone
from training.model.preset import Recipe
from training.model.presets import PRESETS
from training.options import FIT_OPTIONS, FitOptions, read_fit_options

PARTS_OF_THEIR_OWN = {Recipe: {"augmentation"}, Backbone: {"application"}}
"""Parts of a recipe that the preset alone decides, or that have fields of their own."""
OTHER_VALUES: dict[str, Any] = {
    "data": "photos",
    "name": "other",
    "preset": PRESETS["efficientnet_v2_b0"],
    "weights": "none",
    "fine_tune_from": "block6b",
    "batch_size": "full",
    "fold": Fold(2, 5),
    "size": (48, 64),
    "group_by": "runs",
    "model_store": Path("elsewhere"),
    "about": Path("about.md"),
}
"""Other values than the default, where a type and a range do not give one."""
REPEATED = [name for name, declared in FIT_OPTIONS.items() if declared.option.repeated != "never"]


def is_read_from_text(declared: Declared) -> bool:
    return any(isinstance(part, BeforeValidator) for part in declared.info.metadata)


def is_numeric(declared: Declared) -> bool:
    kinds = get_args(declared.info.annotation) or (declared.info.annotation,)
    return not is_read_from_text(declared) and (int in kinds or float in kinds)


def bounds_of(declared: Declared) -> dict[str, float]:
    found: dict[str, Any] = {}
    for part in declared.info.metadata:
        match part:
            case Ge(bound):
                found["ge"] = bound
            case Gt(bound):
                found["gt"] = bound
            case Le(bound):
                found["le"] = bound
    return found


def other_value(declared: Declared) -> Any:
    """Return a value that the field may have and that is not its default."""
    if declared.name in OTHER_VALUES:
        return OTHER_VALUES[declared.name]
    choices = [choice for choice in get_args(declared.info.annotation) if isinstance(choice, str)]
    if choices or any(get_origin(kind) is Literal for kind in get_args(declared.info.annotation)):
        choices = choices or list(get_args(get_args(declared.info.annotation)[0]))
        return next(choice for choice in choices if choice != declared.info.default)
    if declared.info.annotation is bool:
        return not declared.info.default
    bounds = bounds_of(declared)
    low = bounds.get("ge", bounds.get("gt", 0))
    kinds = get_args(declared.info.annotation) or (declared.info.annotation,)
    return int(low) + 3 if int in kinds else low + min(bounds.get("le", 1.0) - low, 1.0) / 4


def given_by(words: list[str]) -> FitOptions:
    """Return what `fit` reads from the words of a command line."""
    command = get_command(cli).commands["fit"]  # type: ignore[attr-defined]
    return read_fit_options(command.make_context("fit", words).params)


def with_value(name: str, value: Any) -> FitOptions:
    """Return options of which one has this value, on a preset that has every part."""
    declared = FIT_OPTIONS[name]
    options = FitOptions(data="digits", name="d", preset=PRESETS["mobilenet_v3_small"])
    preset, changed = options.preset, {declared.field: value}
    assert preset.backbone is not None
    if declared.by is FitOptions:
        return replace(options, **changed)
    if declared.by is Recipe:
        recipe = replace(preset.recipe, **changed)
    else:
        return replace(options, preset=replace(preset, backbone=replace(preset.backbone, **changed)))
    return replace(options, preset=replace(preset, recipe=recipe))


def test_every_field_is_an_option_of_fit_with_its_own_help() -> None:
    shown = {option.name: option for option in get_command(cli).commands["fit"].params}  # type: ignore[attr-defined]
    declared = {(each.by, each.field) for each in FIT_OPTIONS.values()}
    assert list(shown) == list(FIT_OPTIONS)
    for by in (FitOptions, Recipe, Backbone):
        missing = {field.name for field in fields(by)} - {field for owner, field in declared if owner is by}
        assert missing == PARTS_OF_THEIR_OWN.get(by, set())
    for name, each in FIT_OPTIONS.items():
        assert shown[name].opts == [each.word]
        assert shown[name].help == each.info.description
        assert shown[name].help


@pytest.mark.parametrize("name", [name for name, declared in FIT_OPTIONS.items() if is_numeric(declared)])
def test_a_number_has_a_range_and_is_rejected_outside_of_it_by_a_sentence(name: str, tmp_path: Path) -> None:
    declared = FIT_OPTIONS[name]
    bounds = bounds_of(declared)
    assert "ge" in bounds or "gt" in bounds, f"{name} has no least value"
    outside = [bounds["ge"] - 1] if "ge" in bounds else [bounds["gt"]]
    outside += [bounds["le"] + 1] if "le" in bounds else []
    for value in outside:
        words = ["fit", "--data", "digits", "--name", "d", "--preset", "mobilenet_v3_small", declared.word, f"{value}"]
        done = CliRunner().invoke(cli, [*words, "--model-store", str(tmp_path)], env={"COLUMNS": "200"})
        assert done.exit_code == (1 if declared.option.late else 2), done.output
        assert declared.word in done.stderr
        assert "should be" in done.stderr
    assert list(tmp_path.iterdir()) == []


NONSENSE = {
    "preset": "resnet",
    "batch_size": "0",
    "fold": "3/2",
    "model_store": "ftp://models",
    "size": "0",
    "require": "accuracy=2",
    "against": "0",
}


@pytest.mark.parametrize("name", [name for name, declared in FIT_OPTIONS.items() if is_read_from_text(declared)])
def test_a_text_that_means_nothing_is_rejected_by_a_sentence(name: str, tmp_path: Path) -> None:
    words = ["fit", "--data", "digits", "--name", "d", "--model-store", str(tmp_path)]
    done = CliRunner().invoke(cli, [*words, FIT_OPTIONS[name].word, NONSENSE[name]])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("error: ")
    assert NONSENSE[name] in done.stderr


@pytest.mark.parametrize("name", REPEATED)
def test_the_command_repeats_every_option_that_makes_the_model(name: str) -> None:
    options = with_value(name, other_value(FIT_OPTIONS[name]))
    command = shlex.split(options.command(here=True))
    assert command[1:4] == ["-m", "training", "fit"]
    assert given_by(command[4:]) == options
    assert FIT_OPTIONS[name].word.removeprefix("--") in " ".join(command)


def test_a_command_for_this_machine_skips_the_bad_pictures_that_the_run_has_skipped() -> None:
    options = with_value("on_bad_image", "skip")
    assert "--on-bad-image skip" in options.command(here=True)
    assert "--on-bad-image" not in options.command()


def test_the_command_of_every_preset_repeats_it() -> None:
    for preset in PRESETS.values():
        options = FitOptions(data="digits", name="d", preset=preset)
        assert given_by(shlex.split(options.command())[4:]) == options


def test_the_command_names_no_folder_of_the_machine_unless_it_is_for_it(tmp_path: Path) -> None:
    options = replace(
        with_value("weights", str(tmp_path / "weights.h5")),
        data=str(tmp_path / "photos"),
        about=tmp_path / "about.md",
        model_store=tmp_path / "store",
        logs=tmp_path / "logs",
    )
    assert str(tmp_path) not in options.command()
    assert options.command(here=True).count(str(tmp_path)) == 4


@pytest.mark.parametrize("name", [name for name in FIT_OPTIONS if name not in REPEATED])
def test_the_command_leaves_out_what_does_not_make_the_model(name: str) -> None:
    assert f"{FIT_OPTIONS[name].word} " not in f"{FitOptions(data='digits', name='d').command(here=True)} "
