"""The training command line: `python -m training fit | sweep | evaluate | compare | audit | folds`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from app.contract.store import ModelStore
from app.engines.registry import EngineChoice
from app.errors import ImageclassError
from training.audit.command import FailOnOption, FixOption, GroupByOption, ThresholdOption
from training.audit.command import audit as run_audit_command
from training.data.folds import parse_fold
from training.errors import ChiefPublishes, OptionError
from training.evaluation.acceptance import FIGURES, check_recall, check_requirements, parse_against, parse_requirement
from training.evaluation.calibration.tables import print_calibration
from training.evaluation.score import Scores
from training.fitting.distribution import StrategyName
from training.model.preset import ClassWeights, Loss, OptimizerName, Precision, Schedule
from training.model.presets import PRESETS, preset_named
from training.options import FitOptions, parse_batch_size, parse_size, with_recipe, with_transfer
from training.progress import Reporter

if TYPE_CHECKING:
    from app.engines.loading import LoadedModel
    from training.evaluation.measure import Measurement

cli = typer.Typer(
    help="Train image classifiers on labelled pictures, and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130

DataOption = Annotated[
    str,
    typer.Option(
        help="A folder with one sub-folder for each class; an .npz, IDX or CSV file; or mnist, fashion_mnist, cifar10, "
        "cifar100 (downloaded) or digits (always there).",
        show_default=False,
    ),
]
ModelStoreOption = Annotated[Path, typer.Option(help="Folder of bundles.", envvar="IMAGECLASS_MODEL_STORE")]
OnBadImageOption = Annotated[
    Literal["fail", "skip"], typer.Option(help="What to do about pictures that cannot be read.")
]

CacheOption = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Use and keep what earlier runs worked out, in ~/.cache/imageclass.")
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"A figure on the test pictures and what it must reach, as accuracy=0.98 ({', '.join(FIGURES)}; "
        "the loss at most); may be repeated.",
        show_default=False,
    ),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        help="A version, or live for the one that is to be served: no class may be recalled worse than by it.",
        show_default=False,
    ),
]
MaxRecallDropOption = Annotated[
    float, typer.Option(min=0, max=1, help="By how much the recall of a class may be lower than with --against.")
]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except ChiefPublishes as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(0) from exc
    except ImageclassError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc
    except MemoryError as exc:
        typer.echo("error: The memory of this machine is not enough. Give a smaller --size or --batch-size.", err=True)
        raise typer.Exit(1) from exc


@cli.command()
def fit(
    data: DataOption,
    name: Annotated[str, typer.Option(help="The model's name in the store and in URLs.", show_default=False)],
    preset: Annotated[
        str,
        typer.Option(help="; ".join(f"{preset.name}: {preset.summary}" for preset in PRESETS.values()) + "."),
    ] = "seed",
    weights: Annotated[
        str | None,
        typer.Option(
            help="What a backbone starts from: imagenet (downloaded), a file of such weights, or none.",
            show_default=False,
        ),
    ] = None,
    fine_tune_epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Passes after --epochs, in which the backbone learns too.", show_default=False),
    ] = None,
    fine_tune_rate: Annotated[
        float | None, typer.Option(min=1e-9, help="Step size, or its peak, of these passes.", show_default=False)
    ] = None,
    model_store: ModelStoreOption = Path("model_store"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training pictures.")] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Pictures a step, or full for one step an epoch (gradient descent).")
    ] = None,
    loss: Annotated[Loss | None, typer.Option(help="What training makes small.")] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option(help="How the weights are moved.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Step size; the peak of a schedule.")] = None,
    schedule: Annotated[Schedule | None, typer.Option(help="How the learning rate goes.")] = None,
    warm_up: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the steps over which the learning rate climbs.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="Decoupled weight decay of the kernels.")] = None,
    momentum: Annotated[
        float | None, typer.Option(min=0, max=0.999, help="Of the optimizer momentum, which is Nesterov's.")
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of each target that goes to all classes alike.")
    ] = None,
    mixup: Annotated[float | None, typer.Option(min=0, help="Blend pairs of pictures: alpha; 0 does not.")] = None,
    augment_until: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the epochs with augmentation and mixup.")
    ] = None,
    weight_averaging: Annotated[
        float | None,
        typer.Option(min=0, max=0.99999, help="Decay of the running mean of the weights that is used; 0 for none."),
    ] = None,
    class_weights: Annotated[
        ClassWeights | None, typer.Option(help="Whether all classes weigh alike, however few pictures they have.")
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            min=0, help="Stop after so many epochs without a lower validation loss, and take the best; 0 does not."
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="What training computes in; auto: bfloat16 where the CPU has it.")
    ] = None,
    steps_per_execution: Annotated[
        int | None, typer.Option(min=1, help="Steps between two looks at the progress.")
    ] = None,
    drop_remainder: Annotated[
        bool | None,
        typer.Option(help="Leave out, of each epoch anew, the pictures that do not fill a batch.", show_default=False),
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of each class held out to watch training, where the data marks none.")
    ] = None,
    test: Annotated[
        float, typer.Option(help="Share of each class held out for the test, where the data marks none.")
    ] = 0.2,
    fold: Annotated[
        str | None,
        typer.Option(
            help="Hold out one fold for the test instead, as 2/5 for the second of five; see folds.", show_default=False
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels: 64, or HEIGHTxWIDTH, or data for the pictures' own.")
    ] = None,
    colour: Annotated[
        Literal["grey", "rgb", "data"] | None, typer.Option(help="What the network sees; data for the pictures' own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the split, the weights and the order.")] = 0,
    on_bad_image: OnBadImageOption = "fail",
    group_by: GroupByOption = None,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Train even where the data's own splits share pictures or groups.")
    ] = False,
    cache: CacheOption = True,
    calibration: Annotated[
        Literal["temperature", "none"],
        typer.Option(help="Fit a temperature on the validation pictures, or leave the softmax as it was trained."),
    ] = "temperature",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run of this name, where there is one.")
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same weights to the last bit in every run; slower.")
    ] = False,
    strategy: Annotated[
        StrategyName, typer.Option(help="Train on all GPUs, or with the workers that TF_CONFIG names.")
    ] = "none",
    logs: Annotated[
        Path | None, typer.Option(help="Folder for epochs.csv and TensorBoard's events.", show_default=False)
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="Markdown about the data, its licence and the limits, for the card.", show_default=False),
    ] = None,
    require: RequireOption = None,
    against: AgainstOption = None,
    max_recall_drop: MaxRecallDropOption = 0.02,
    report: Annotated[bool, typer.Option(help="Write report.html into the bundle.")] = True,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, help="Remove older versions than the newest so many, but not the pinned one.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a classifier and publish it as a new version in the model store.

    Options that are not given follow the preset.
    """
    reporter = Reporter()
    try:
        with _one_line_errors():
            from training.run import run_fit

            if learning_rate is not None and not learning_rate > 0:
                raise OptionError(f"--learning-rate {learning_rate} is not above 0.")
            chosen = with_recipe(
                with_transfer(
                    preset_named(preset),
                    weights=weights,
                    fine_tune_epochs=fine_tune_epochs,
                    fine_tune_rate=fine_tune_rate,
                ),
                {
                    "epochs": epochs,
                    "batch_size": None if batch_size is None else parse_batch_size(batch_size),
                    "loss": loss,
                    "optimizer": optimizer,
                    "learning_rate": learning_rate,
                    "schedule": schedule,
                    "warm_up": warm_up,
                    "weight_decay": weight_decay,
                    "momentum": momentum,
                    "label_smoothing": label_smoothing,
                    "mixup": mixup,
                    "augment_until": augment_until,
                    "weight_averaging": weight_averaging,
                    "class_weights": class_weights,
                    "early_stopping": early_stopping,
                    "precision": precision,
                    "steps_per_execution": steps_per_execution,
                    "drop_remainder": drop_remainder,
                    "validation": validation,
                },
            )
            options = FitOptions(
                data=data,
                name=name,
                preset=chosen,
                model_store=model_store,
                seed=seed,
                test=test,
                fold=None if fold is None else parse_fold(fold),
                size=None if size is None else parse_size(size),
                colour=colour,
                on_bad_image=on_bad_image,
                about=about,
                requirements=tuple(parse_requirement(text) for text in require or ()),
                against=None if against is None else parse_against(against),
                max_recall_drop=max_recall_drop,
                keep=keep,
                group_by=group_by,
                allow_leakage=allow_leakage,
                resume=resume,
                deterministic=deterministic,
                strategy=strategy,
                logs=logs,
                cache=cache,
                calibration=calibration,
                report=report,
            )
            published = run_fit(options, reporter)
    except KeyboardInterrupt:
        versions = ", ".join(str(version) for version in ModelStore(model_store).versions(name)) or "none"
        typer.echo(
            f"\nStopped. Nothing was published; versions of {name} in {model_store}: {versions}.",
            err=True,
        )
        raise typer.Exit(_INTERRUPTED) from None
    _say_published(published, reporter, model_store=model_store, name=name)


def _say_published(published: "LoadedModel", reporter: Reporter, *, model_store: Path, name: str) -> None:
    manifest = published.bundle.manifest
    reporter.say(f"proven on {published.engine.name}: {published.proof.pictures} golden pictures")
    figure = manifest.metrics.get("test.accuracy", manifest.metrics["train.accuracy"])
    which = "test" if "test.accuracy" in manifest.metrics else "training"
    typer.echo(f"{published.bundle.path}: {which} accuracy {figure:.2%}")
    reporter.say(f"serve it: python -m app serve --model-store {model_store} --model {name}")


@cli.command()
def sweep(
    data: DataOption,
    name: Annotated[str, typer.Option(help="The model's name in the store and in URLs.", show_default=False)],
    tried: Annotated[
        list[str],
        typer.Option("--try", help="A preset, or one with a learning rate, as quick@0.002; given twice or more often."),
    ],
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 10m or 1h.")] = "10m",
    model_store: ModelStoreOption = Path("model_store"),
    validation: Annotated[
        float, typer.Option(help="Share of each class held out to choose by, where the data marks none.")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(help="Share of each class held out for the test, where the data marks none.")
    ] = 0.2,
    size: Annotated[
        str | None, typer.Option(help="Pixels: 64, or HEIGHTxWIDTH, or data for the pictures' own.")
    ] = None,
    colour: Annotated[
        Literal["grey", "rgb", "data"] | None, typer.Option(help="What the network sees; data for the pictures' own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the split, the weights and the order.")] = 0,
    on_bad_image: OnBadImageOption = "fail",
    group_by: GroupByOption = None,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Train even where the data's own splits share pictures or groups.")
    ] = False,
    cache: CacheOption = True,
) -> None:
    """Try several presets or learning rates within a time, and publish the best of them.

    The validation pictures decide; only the winner is measured on the test pictures. What was found is printed even
    where it is stopped.
    """
    reporter = Reporter()
    try:
        with _one_line_errors():
            from training.sweep.command import sweep as run_sweep_command
            from training.sweep.halving import parse_candidate

            candidates = [parse_candidate(text, validation=validation) for text in tried]
            options = FitOptions(
                data=data,
                name=name,
                preset=candidates[0].preset,
                model_store=model_store,
                seed=seed,
                test=test,
                size=None if size is None else parse_size(size),
                colour=colour,
                on_bad_image=on_bad_image,
                about=None,
                group_by=group_by,
                allow_leakage=allow_leakage,
                cache=cache,
            )
            published = run_sweep_command(candidates, options, budget=budget, reporter=reporter)
    except KeyboardInterrupt:
        typer.echo("\nStopped. Nothing was published; train the best with fit.", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    _say_published(published, reporter, model_store=model_store, name=name)


@cli.command()
def evaluate(
    data: DataOption,
    model: Annotated[str, typer.Option(help="The model's name in the store.", show_default=False)],
    version: Annotated[int | None, typer.Option(help="Which version; the newest where none is named.")] = None,
    model_store: ModelStoreOption = Path("model_store"),
    split: Annotated[
        Literal["test", "validation", "train", "all"], typer.Option(help="Which of the pictures to measure on.")
    ] = "test",
    engine: Annotated[EngineChoice, typer.Option(help="What runs the model here.")] = "auto",
    url: Annotated[
        str | None, typer.Option(help="Measure the service at this address, and compare it with the bundle here.")
    ] = None,
    on_bad_image: OnBadImageOption = "fail",
    cache: CacheOption = True,
    group_by: GroupByOption = None,
    require: RequireOption = None,
    against: AgainstOption = None,
    max_recall_drop: MaxRecallDropOption = 0.02,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a bundle, or a running service, on labelled pictures.

    Exit code 1 where it does not reach what --require and --against say.
    """
    reporter = Reporter()
    try:
        with _one_line_errors():
            from app.contract.bundle import open_bundle
            from training.audit.groups import groups_of
            from training.data.sources import open_data
            from training.evaluation.baseline import rival_of, score_rival
            from training.evaluation.measure import choose_pictures, measure

            requirements = [parse_requirement(text) for text in require or ()]
            store = ModelStore(model_store)
            path = store.newest(model) if version is None else store.path(model, version)
            rival = None if against is None else rival_of(store, model, parse_against(against))
            dataset = open_data(data)
            pictures, which = choose_pictures(dataset, open_bundle(path), split)
            measured = measure(
                path,
                pictures,
                engine=engine,
                url=url,
                on_bad_image=on_bad_image,
                groups={} if group_by is None else groups_of(dataset, data, group_by),
                reporter=reporter,
                cache=cache,
            )
            before = None if rival is None else score_rival(rival, measured.pictures, engine=engine, reporter=reporter)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    _print_measurement(model, which, measured, as_json=as_json)
    with _one_line_errors():
        scores = measured.scores.as_dict()
        check_requirements(scores, requirements, on=which)
        if rival is not None and before is not None:
            check_recall(scores, before, version=rival.version, max_drop=max_recall_drop, on=which)


@cli.command()
def compare(
    a: Annotated[str, typer.Argument(help="A bundle, as mnist:1, or mnist for the newest version, or its folder.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    data: DataOption,
    model_store: ModelStoreOption = Path("model_store"),
    split: Annotated[
        Literal["test", "validation", "train", "all"], typer.Option(help="Which of the pictures to compare on.")
    ] = "test",
    engine: Annotated[EngineChoice, typer.Option(help="What runs the models here.")] = "auto",
    cache: CacheOption = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put two bundles side by side on the same labelled pictures, and test whether the difference is real."""
    try:
        with _one_line_errors():
            from training.evaluation.compare.command import compare as run_compare_command

            run_compare_command(
                a,
                b,
                data=data,
                store=ModelStore(model_store),
                split=split,
                engine=engine,
                cache=cache,
                as_json=as_json,
                reporter=Reporter(),
            )
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _print_measurement(model: str, which: str, measured: "Measurement", *, as_json: bool) -> None:
    agreement = measured.agreement
    if as_json:
        found = {"which": which, "measured": measured.engine, **measured.scores.as_dict()}
        found["calibration"] = measured.calibration
        if agreement is not None:
            found["agreement"] = {
                "pictures": agreement.pictures,
                "same_label": agreement.same_label,
                "max_probability_difference": agreement.max_probability_difference,
            }
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{model} on {which}, by {measured.engine}")
    _print_scores(measured.scores)
    print_calibration(measured.calibration, Console(soft_wrap=True, highlight=False))
    if agreement is not None:
        typer.echo(
            f"Compared with the bundle in process: {agreement.same_label:,} of {agreement.pictures:,} labels are the "
            f"same, probabilities differ by {agreement.max_probability_difference:.1e} at most."
        )


@cli.command()
def audit(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for audit.json and audit.html.")] = Path("audit"),
    fail_on: FailOnOption = "",
    group_by: GroupByOption = None,
    threshold: ThresholdOption = None,
    near: Annotated[bool, typer.Option(help="Look for near duplicates.")] = True,
    labels: Annotated[bool, typer.Option(help="Look for wrong labels, which trains models.")] = True,
    fix: FixOption = None,
    cache: CacheOption = True,
) -> None:
    """Find what is wrong with labelled pictures before anything is trained on them."""
    try:
        with _one_line_errors():
            passed = run_audit_command(
                data,
                out=out,
                fail_on=fail_on,
                group_by=group_by,
                threshold=threshold,
                near=near,
                labels=labels,
                fix=fix,
                cache=cache,
                reporter=Reporter(),
            )
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    if not passed:
        raise typer.Exit(1)


@cli.command()
def folds(
    data: DataOption,
    count: Annotated[int, typer.Option("--folds", min=2, help="How many.")] = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the shuffle; fit's --seed.")] = 0,
    group_by: GroupByOption = None,
    out: Annotated[Path, typer.Option(help="A CSV file of id and fold.")] = Path("folds.csv"),
) -> None:
    """Write down which pictures `fit --fold 1/N`, `fit --fold 2/N` and so on hold out."""
    try:
        with _one_line_errors():
            from training.commands.folds import run_folds

            run_folds(data, count=count, seed=seed, group_by=group_by, out=out, reporter=Reporter())
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _print_scores(scores: Scores) -> None:
    console = Console(soft_wrap=True)
    typer.echo(f"accuracy {scores.accuracy:.4%} of {int(scores.confusion.sum()):,} pictures, loss {scores.loss:.4f}")
    table = Table("class", "precision", "recall", "pictures")
    for label, row in scores.by_class.items():
        shown = ["never" if value is None else f"{value:.2%}" for value in (row.precision, row.recall)]
        table.add_row(label, *shown, f"{row.pictures:,}")
    console.print(table)
    typer.echo("Confusion: a row for each true class, a column for each predicted one.")
    confusion = Table("", *scores.by_class)
    for label, counts in zip(scores.by_class, scores.confusion, strict=True):
        confusion.add_row(label, *(str(count) if count else "·" for count in counts))
    console.print(confusion)


if __name__ == "__main__":
    try:
        cli(prog_name="python -m training")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
