"""What `fit` can be asked for, from the words of its command line and back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from app.contract.location import needs_a_folder, parse_location
from app.system.invocation import command_line
from training.data.folds import Fold, parse_fold
from training.data.preprocessing import Colour, Size
from training.data.split import MAX_FRACTION
from training.declared import ALWAYS, NEVER, Declared, Option, fields_given, options_of, plain_range_errors, reads
from training.errors import OptionError
from training.evaluation.acceptance import FIGURES, Against, Requirement, parse_against, parse_requirement
from training.evaluation.calibration.temperature import Method
from training.fitting.strategy import StrategyName
from training.model.layers import Backbone
from training.model.preset import Preset, Recipe
from training.model.presets import PRESETS, preset_named

Effort = Literal["quick", "standard"]


def parse_size(text: str) -> Size:
    """Return "data", or (height, width) from "64" or "48x64" (height first). Raises OptionError."""
    if text == "data":
        return "data"
    parts = text.lower().split("x")
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts) or len(parts) > 2:
        raise OptionError(f"--size {text} is not a size: give 64, or HEIGHTxWIDTH as in 48x64, or data. At most 4096.")
    return int(parts[0]), int(parts[-1])


# What several commands take, `fit` among them.
DataOption = Annotated[
    str,
    Field(
        description="A folder with one sub-folder for each class, or a .zip or .tar of it; an .npz, IDX or CSV file; "
        "or mnist, fashion_mnist, cifar10, cifar100 (downloaded) or digits (always there)."
    ),
    Option(repeated="always", is_path=True),
]
NameOption = Annotated[str, Field(description="The model's name in the store and in URLs."), ALWAYS]
ModelStoreOption = Annotated[
    Path,
    reads(lambda text: needs_a_folder(parse_location(text))),
    Field(description="Folder of bundles; for fit also a bucket: s3://, gs:// or az://BUCKET/PREFIX."),
    Option(variable="IMAGECLASS_MODEL_STORE", repeated="here"),
]
TestOption = Annotated[
    float,
    Field(ge=0, le=MAX_FRACTION, description="Share of each class held out for the test, if the data marks none."),
    Option(repeated="always", late=True),
]
SizeOption = Annotated[
    Size | None,
    reads(parse_size),
    Field(description="Pixels: 64, or HEIGHTxWIDTH, or data for the pictures' own."),
]
ColourOption = Annotated[Colour | None, Field(description="What the network sees; data for the pictures' own.")]
SeedOption = Annotated[int, Field(ge=0, le=2**31 - 1, description="Of the split, the weights and the order."), ALWAYS]
OnBadImageOption = Annotated[
    Literal["fail", "skip"],
    Field(description="What to do about pictures that cannot be read."),
    Option(repeated="changed here"),
]
GroupByOption = Annotated[
    str | None,
    Field(
        description="What belongs together and never comes into two splits: a regular expression over paths whose "
        "first group names it, a column of the CSV, or runs (file numbers that run on while the class rises)."
    ),
]
AllowLeakageOption = Annotated[bool, Field(description="Train even if the data's own splits share pictures or groups.")]
CacheOption = Annotated[
    bool, Field(description="Use and keep what earlier runs worked out, in ~/.cache/imageclass."), NEVER
]
EffortOption = Annotated[
    Effort | None,
    Field(description="How much work the chosen preset may be: quick, or standard if it is left out."),
    NEVER,
]
RequireOption = Annotated[
    tuple[Requirement, ...],
    reads(parse_requirement, as_type=list[str]),
    Field(
        description=f"A figure on the test pictures and what it must reach, as accuracy=0.98 ({', '.join(FIGURES)}; "
        "the loss at most); may be repeated."
    ),
    Option(name="require", repeated="never"),
]
AgainstOption = Annotated[
    Against | None,
    reads(parse_against),
    Field(
        description="A version, or live for the one that is to be served: no class may be recalled worse than by it."
    ),
    NEVER,
]
MaxRecallDropOption = Annotated[
    float,
    Field(ge=0, le=1, description="By how much the recall of a class may be lower than with --against."),
    NEVER,
]


@dataclass(frozen=True)
class FitOptions:
    """What `fit` was asked for: a preset whose recipe has the command line's changes already in it.

    A command does not repeat what only says whether the result is published, and what is removed then; nor on how many
    machines it ran, or what was logged.
    """

    data: DataOption
    name: NameOption
    preset: Annotated[Preset, reads(preset_named), Option(repeated="always", chosen=True)] = Field(
        default=PRESETS["seed"],
        description="The network and how it is trained; chosen by the pictures if it is left out. "
        + "; ".join(f"{preset.name}: {preset.summary}" for preset in PRESETS.values())
        + ".",
    )
    effort: EffortOption = None
    model_store: ModelStoreOption = Path("model_store")
    test: TestOption = 0.2
    fold: Annotated[Fold | None, reads(parse_fold)] = Field(
        default=None, description="Hold out one fold for the test instead, as 2/5 for the second of five; see folds."
    )
    size: SizeOption = None
    colour: ColourOption = None
    seed: SeedOption = 0
    on_bad_image: OnBadImageOption = "fail"
    group_by: GroupByOption = None
    allow_leakage: AllowLeakageOption = False
    cache: CacheOption = True
    calibration: Method = Field(
        default="temperature",
        description="Fit a temperature on the validation pictures, or leave the softmax as it was trained.",
    )
    min_precision: float | None = Field(
        default=None,
        ge=0.01,
        le=1,
        description="Have the service call answers unsure below a probability, chosen so that this share of the others "
        "is right on the validation pictures, as 0.99.",
    )
    false_alarms: float | None = Field(
        default=None,
        ge=0.0001,
        le=0.5,
        description="Have the service say of each picture whether it is unfamiliar, and be wrong about this share of "
        "familiar ones, as 0.01.",
    )
    resume: Annotated[bool, NEVER] = Field(
        default=False, description="Go on with the unfinished run of this name, if there is one."
    )
    deterministic: bool = Field(default=False, description="The same weights to the last bit in every run; slower.")
    strategy: Annotated[StrategyName, NEVER] = Field(
        default="none", description="Train on all GPUs, or with the workers that TF_CONFIG names."
    )
    logs: Annotated[Path | None, NEVER] = Field(
        default=None, description="Folder for epochs.csv and TensorBoard's events."
    )
    about: Annotated[Path | None, Option(is_path=True)] = Field(
        default=None, description="Markdown about the data, its licence and the limits, for the card."
    )
    requirements: RequireOption = ()
    against: AgainstOption = None
    max_recall_drop: MaxRecallDropOption = 0.02
    report: Annotated[bool, NEVER] = Field(default=True, description="Write report.html into the bundle.")
    keep: Annotated[int | None, NEVER] = Field(
        default=None, ge=1, description="Remove older versions than the newest so many, but not the live one."
    )

    def command(self, *, here: bool = False, after: Self | None = None) -> str:
        """Return the command that repeats the run, without the folders of the machine that it ran on unless `here`.

        As the next thing to do `after` another run, it leaves out what is the preset's own, unless that run had
        another value.
        """
        recipe = self.preset.recipe
        values = {FitOptions: self, Backbone: self.preset.backbone, Recipe: recipe}
        own = preset_named(self.preset.name)
        usual = values | {Backbone: own.backbone, Recipe: own.recipe}
        before = usual
        if after is not None and after.preset.name == own.name:
            before = values | {Backbone: after.preset.backbone, Recipe: after.preset.recipe}
        words = ["training", "fit"]
        for name, declared in FIT_OPTIONS.items():
            if values[declared.by] is not None and not (name == "test" and self.fold is not None):
                value, usually, was = (getattr(each[declared.by], declared.field) for each in (values, usual, before))
                if after is not None and declared.by is not FitOptions and value == usually == was:
                    continue
                words += declared.words(value, usual=usually, here=here)
        return command_line(*words, here=here)


def _fit_options() -> dict[str, Declared]:
    found = {}
    for name, declared in options_of(FitOptions).items():
        found[name] = declared
        if name == "preset":
            found |= options_of(Backbone)
        if name == "model_store":
            found |= options_of(Recipe)
    return found


FIT_OPTIONS = _fit_options()
"""All options of `fit` in their order: those of `FitOptions`, and those that change parts of the preset."""


def read_fit_options(given: Mapping[str, Any]) -> FitOptions:
    """Return what `fit` is asked for by a value, or None, for each of its options. Raises OptionError."""
    options = read_unless_of_preset(given)
    if given["preset"] and given["effort"]:
        raise OptionError("--effort chooses a preset, and --preset names one. Give one of the two.")
    preset = with_recipe(with_backbone(options.preset, fields_given(Backbone, given)), fields_given(Recipe, given))
    if not preset.recipe.epochs and (preset.backbone is None or not preset.backbone.is_taught):
        raise OptionError("--epochs 0 is for a preset with a backbone that has weights: nothing else can do without.")
    return replace(options, preset=preset)


def read_unless_of_preset(given: Mapping[str, Any]) -> FitOptions:
    """Return what `fit` is asked for, without what changes its preset. Raises OptionError, for that, too."""
    with plain_range_errors(FitOptions):
        options = FitOptions(**fields_given(FitOptions, given))
    with_recipe(options.preset, fields_given(Recipe, given))
    return options


def with_recipe(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return the preset with those parts of its recipe replaced that are not None. Raises OptionError."""
    given = {name: value for name, value in changes.items() if value is not None}
    with plain_range_errors(Recipe):
        return replace(preset, recipe=replace(preset.recipe, **given))


def with_backbone(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return the preset with those parts of its backbone replaced that are not None. Raises OptionError."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return preset
    if preset.backbone is None:
        raise OptionError(
            f"Preset {preset.name} starts from nothing: --weights and --fine-tune-from are for those with a backbone, "
            f"{', '.join(name for name, other in PRESETS.items() if other.backbone)}."
        )
    backbone = replace(preset.backbone, **given)
    if backbone.weights not in ("imagenet", "none") and not Path(backbone.weights).is_file():
        raise OptionError(f"--weights {backbone.weights} is neither imagenet, none nor a file.")
    return replace(preset, backbone=backbone)
