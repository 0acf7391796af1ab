"""The command `python -m training sweep`. It trains nothing itself."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.console import Console

from app.system.invocation import INTERRUPTED
from app.system.wording import count_of
from training.commands.declared_options import command
from training.commands.fit import say_published
from training.data.split import MAX_FRACTION
from training.declared import Option
from training.errors import OptionError
from training.evaluation.compare.paired import SIGNIFICANT
from training.evaluation.tables import name_table
from training.options import (
    AllowLeakageOption,
    CacheOption,
    ColourOption,
    DataOption,
    FitOptions,
    GroupByOption,
    ModelStoreOption,
    NameOption,
    OnBadImageOption,
    SeedOption,
    SizeOption,
    TestOption,
)
from training.progress import Reporter

if TYPE_CHECKING:
    from training.sweep.halving import Sweep


@command
def sweep(
    data: DataOption,
    name: NameOption,
    tried: Annotated[
        list[str],
        typer.Option("--try", help="A preset, or one with a learning rate, as quick@0.002; given twice or more often."),
    ],
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 10m or 1h.")] = "10m",
    model_store: ModelStoreOption = Path("model_store"),
    validation: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_FRACTION,
            description="Share of each class held out to choose by, if the data marks none.",
        ),
        Option(late=True),
    ] = 0.1,
    test: TestOption = 0.2,
    size: SizeOption = None,
    colour: ColourOption = None,
    seed: SeedOption = 0,
    on_bad_image: OnBadImageOption = "fail",
    group_by: GroupByOption = None,
    allow_leakage: AllowLeakageOption = False,
    cache: CacheOption = True,
) -> None:
    """Try several presets or learning rates within a time, and publish the best of them.

    The validation pictures decide; only the winner is measured on the test pictures. What was found is printed even
    where it is stopped.
    """
    reporter = Reporter()
    found = None
    try:
        from training.sweep.halving import Sweep, parse_budget, parse_candidate, publish_best, run_trials  # TensorFlow

        candidates = [parse_candidate(text, validation=validation) for text in tried]
        options = FitOptions(
            data=data,
            name=name,
            preset=candidates[0].preset,
            model_store=model_store,
            seed=seed,
            test=test,
            size=size,
            colour=colour,
            on_bad_image=on_bad_image,
            group_by=group_by,
            allow_leakage=allow_leakage,
            cache=cache,
        )
        seconds = parse_budget(budget)
        names = [candidate.name for candidate in candidates]
        if len(set(names)) < len(names) or len(names) < 2:
            raise OptionError("A sweep takes two candidates at least, each once: --try quick --try quick@0.002.")
        found = Sweep(candidates)
        try:
            run_trials(found, options, budget=seconds, reporter=reporter)
        finally:
            _print_trials(found)
        published = publish_best(found, options, budget=seconds, reporter=reporter)
    except KeyboardInterrupt:
        typer.echo("\nStopped. Nothing was published.", err=True)
        if found is not None and found.ranking():
            best = replace(options, preset=found.ranking()[0].preset)
            typer.echo(f"To train the best so far: {best.command(here=True)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    say_published(published, reporter, model_store=model_store, name=name)


def _print_trials(found: "Sweep") -> None:
    ranking = found.ranking()
    table = name_table("candidate", "accuracy", "macro recall", "epochs", "s an epoch", "p")
    table.title = "On validation pictures; p is that of the difference from the best."
    for candidate in ranking:
        p_value = found.p_value(candidate)
        table.add_row(
            candidate.name,
            f"{candidate.accuracy:.2%}",
            "" if candidate.macro_recall is None else f"{candidate.macro_recall:.2%}",
            str(candidate.epochs),
            f"{candidate.seconds_per_epoch:.1f}",
            "" if p_value is None else f"{p_value:.2g}",
        )
    for candidate in found.candidates:
        if candidate not in ranking:
            table.add_row(candidate.name, "failed" if candidate.failure else "not tried", "", "", "", "")
    Console(soft_wrap=True, highlight=False).print(table)
    close = [each.name for each in ranking if (p := found.p_value(each)) is not None and p >= SIGNIFICANT]
    if close:
        pictures = 0 if ranking[0].right is None else len(ranking[0].right)
        typer.echo(
            f"{count_of(pictures, 'validation picture')} cannot tell {ranking[0].name} from: {', '.join(close)}."
        )
