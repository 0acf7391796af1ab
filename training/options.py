"""The options of `fit`: read from its command line, and written back as a command line."""

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
        raise OptionError(f"--size {text} is not a size. Give 64, HEIGHTxWIDTH such as 48x64, or data; at most 4096.")
    return int(parts[0]), int(parts[-1])


# What several commands take, `fit` among them.
DataOption = Annotated[
    str,
    Field(
        description="A folder with one sub-folder per class, or a .zip or .tar of it; an .npz, IDX or CSV file; or "
        "mnist, fashion_mnist, cifar10, cifar100 (downloaded) or digits (always available)."
    ),
    Option(repeated="always", is_path=True),
]
NameOption = Annotated[str, Field(description="Name of the model, in the store and in URLs."), ALWAYS]
ModelStoreOption = Annotated[
    Path,
    reads(lambda text: needs_a_folder(parse_location(text))),
    Field(description="Folder of bundles; fit also accepts a bucket: s3://, gs:// or az://BUCKET/PREFIX."),
    Option(variable="IMAGECLASS_MODEL_STORE", repeated="here"),
]
TestOption = Annotated[
    float,
    Field(
        ge=0, le=MAX_FRACTION, description="Share of each class held out for the test, if the data has no test split."
    ),
    Option(repeated="always", late=True),
]
SizeOption = Annotated[
    Size | None,
    reads(parse_size),
    Field(description="Input size in pixels: 64, HEIGHTxWIDTH, or data for the pictures' own size."),
]
ColourOption = Annotated[Colour | None, Field(description="Colour of the network's input; data for the pictures' own.")]
SeedOption = Annotated[
    int,
    Field(ge=0, le=2**31 - 1, description="Random seed of the split, the weights and the order of the pictures."),
    ALWAYS,
]
OnBadImageOption = Annotated[
    Literal["fail", "skip"],
    Field(description="What to do with pictures that cannot be read."),
    Option(repeated="changed here"),
]
GroupByOption = Annotated[
    str | None,
    Field(
        description="Keep the pictures of one group, such as a person, in one split. A group is given by a regular "
        "expression over paths whose first capture names it, by a column of the CSV, or by runs "
        "(consecutive file numbers while the class rises)."
    ),
]
AllowLeakageOption = Annotated[
    bool, Field(description="Train even if the data's own splits have pictures or groups in common.")
]
CacheOption = Annotated[
    bool, Field(description="Use the cache of decoded pictures and features in ~/.cache/imageclass."), NEVER
]
EffortOption = Annotated[
    Effort | None,
    Field(description="How long the preset that fit chooses may train: quick or standard. (default: standard)"),
    NEVER,
]
RequireOption = Annotated[
    tuple[Requirement, ...],
    reads(parse_requirement, as_type=list[str]),
    Field(
        description="Publish only if a metric on the test pictures reaches this value, such as accuracy=0.98 "
        f"({', '.join(FIGURES)}; for the loss, an upper limit); may be repeated."
    ),
    Option(name="require", repeated="never"),
]
AgainstOption = Annotated[
    Against | None,
    reads(parse_against),
    Field(
        description=(
            "Publish only if no class's recall falls below that of this version (a number, or live) by more "
            "than --max-recall-drop."
        )
    ),
    NEVER,
]
MaxRecallDropOption = Annotated[
    float,
    Field(ge=0, le=1, description="Allowed drop of a class's recall against the version of --against."),
    NEVER,
]


@dataclass(frozen=True)
class FitOptions:
    """The options of one call of `fit`; the command line's changes are already in the recipe of the preset.

    `command` omits options that only concern publishing, removal of versions, logs, or the number of machines.
    """

    data: DataOption
    name: NameOption
    preset: Annotated[Preset, reads(preset_named), Option(repeated="always", chosen=True)] = Field(
        default=PRESETS["seed"],
        description="Network and training recipe. (default: chosen to suit the pictures) "
        + "; ".join(f"{preset.name}: {preset.summary}" for preset in PRESETS.values())
        + ".",
    )
    effort: EffortOption = None
    model_store: ModelStoreOption = Path("model_store")
    test: TestOption = 0.2
    fold: Annotated[Fold | None, reads(parse_fold)] = Field(
        default=None,
        description="Test on one fold instead of a share: 2/5 is the second of five folds (see the command folds).",
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
        description=(
            "Calibrate the probabilities by a temperature fitted on the validation pictures, or leave the "
            "softmax as trained."
        ),
    )
    min_precision: float | None = Field(
        default=None,
        ge=0.01,
        le=1,
        description="Let the service mark answers as unsure below a probability, chosen so that this share of the "
        "other answers is right on the validation pictures; for example 0.99.",
    )
    false_alarms: float | None = Field(
        default=None,
        ge=0.0001,
        le=0.5,
        description="Let the service mark unfamiliar pictures, at this false-alarm rate: the share of familiar "
        "pictures marked by mistake; for example 0.01.",
    )
    keep_thumbnails: bool = Field(
        default=False,
        description="Keep small copies of training pictures in the bundle, which requests for neighbours can show.",
    )
    resume: Annotated[bool, NEVER] = Field(
        default=False, description="Resume the unfinished run of this name, if there is one."
    )
    deterministic: bool = Field(default=False, description="Make training reproducible to the last bit; slower.")
    strategy: Annotated[StrategyName, NEVER] = Field(
        default="none",
        description="Train on all GPUs of this machine (mirrored), or on the workers named by "
        "TF_CONFIG (multi_worker).",
    )
    logs: Annotated[Path | None, NEVER] = Field(
        default=None, description="Folder for epochs.csv and TensorBoard's events."
    )
    about: Annotated[Path | None, Option(is_path=True)] = Field(
        default=None,
        description="Markdown file about the data, its licence and the model's limits, for the model card.",
    )
    requirements: RequireOption = ()
    against: AgainstOption = None
    max_recall_drop: MaxRecallDropOption = 0.02
    report: Annotated[bool, NEVER] = Field(default=True, description="Write report.html into the bundle.")
    keep: Annotated[int | None, NEVER] = Field(
        default=None, ge=1, description="Keep only the N newest versions; the live version always stays."
    )

    def command(self, *, here: bool = False, after: Self | None = None) -> str:
        """Return the command that repeats the run, without the folders of the machine that it ran on unless `here`.

        `after` is the run that this one follows, if any. Then values that are the preset's own are omitted, unless that
        run had another value.
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
    """Return the options of `fit` from their values by name; None is an option that was not given.

    Raises OptionError.
    """
    options = read_unless_of_preset(given)
    if given["preset"] and given["effort"]:
        raise OptionError("--effort and --preset both choose the preset. Give only one of them.")
    preset = with_recipe(with_backbone(options.preset, fields_given(Backbone, given)), fields_given(Recipe, given))
    if not preset.recipe.epochs and (preset.backbone is None or not preset.backbone.is_taught):
        raise OptionError("--epochs 0 is only for a preset whose backbone has weights; other networks need training.")
    return replace(options, preset=preset)


def read_unless_of_preset(given: Mapping[str, Any]) -> FitOptions:
    """Return the options of `fit` without those that change parts of the preset.

    Raises OptionError if any is invalid, also among those left out.
    """
    with plain_range_errors(FitOptions):
        options = FitOptions(**fields_given(FitOptions, given))
    with_recipe(options.preset, fields_given(Recipe, given))
    return options


def with_recipe(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return the preset with the parts of its recipe replaced that are not None in `changes`. Raises OptionError."""
    given = {name: value for name, value in changes.items() if value is not None}
    with plain_range_errors(Recipe):
        return replace(preset, recipe=replace(preset.recipe, **given))


def with_backbone(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return the preset with the parts of its backbone replaced that are not None in `changes`. Raises OptionError."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return preset
    if preset.backbone is None:
        raise OptionError(
            f"Preset {preset.name} has no backbone. --weights and --fine-tune-from are for presets with one: "
            f"{', '.join(name for name, other in PRESETS.items() if other.backbone)}."
        )
    backbone = replace(preset.backbone, **given)
    if backbone.weights not in ("imagenet", "none") and not Path(backbone.weights).is_file():
        raise OptionError(f"--weights {backbone.weights} is neither imagenet, none nor a file.")
    return replace(preset, backbone=backbone)
