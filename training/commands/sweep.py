"""The command `python -m training sweep`. It trains nothing itself."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field
from rich.console import Console

from app.contract.store import ModelStore
from app.system.invocation import INTERRUPTED
from app.system.wording import count_of
from training.commands.declared_options import command
from training.commands.fit import choose, say_published
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
    EffortOption,
    FitOptions,
    GroupByOption,
    ModelStoreOption,
    NameOption,
    OnBadImageOption,
    SeedOption,
    SizeOption,
    TestOption,
    with_recipe,
)
from training.progress import Reporter

if TYPE_CHECKING:
    from training.sweep.candidates import Candidate
    from training.sweep.halving import Sweep

_VALIDATION = 0.1


@command
def sweep(
    data: DataOption,
    name: NameOption,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            help="A preset, with or without a learning rate, such as quick@0.002; give it at least twice. (default: "
            "what fit would choose for these pictures, and variants of it in one option)",
        ),
    ] = None,
    effort: EffortOption = None,
    budget: Annotated[str, typer.Option(help="Wall time for the whole sweep: 90s, 10m or 1h.")] = "10m",
    model_store: ModelStoreOption = Path("model_store"),
    validation: Annotated[
        float | None,
        Field(
            ge=0,
            le=MAX_FRACTION,
            description="Share of each class held out to choose by, if the data has no validation split. (default: "
            "0.1, or the preset's own)",
        ),
        Option(late=True),
    ] = None,
    test: TestOption = 0.2,
    size: SizeOption = None,
    colour: ColourOption = None,
    seed: SeedOption = 0,
    on_bad_image: OnBadImageOption = "fail",
    group_by: GroupByOption = None,
    allow_leakage: AllowLeakageOption = False,
    cache: CacheOption = True,
) -> None:
    """Try several candidates within a time budget, and publish the best, which is never worse than what fit chooses.

    The validation pictures decide; only the published model is measured on the test pictures. An interrupted sweep
    prints its results so far.
    """
    started, reporter = time.monotonic(), Reporter()
    found = None
    try:
        from training.sweep.halving import Sweep, parse_budget, publish_best, run_trials  # TensorFlow

        seconds = parse_budget(budget)
        options = FitOptions(
            data=data,
            name=name,
            effort=effort,
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
        if tried:
            candidates, choice = _named_candidates(tried, options, validation), None
        else:
            candidates = _chosen_candidates(options, validation, seconds, reporter)
            choice = candidates[0]
        options = replace(options, effort=None, preset=candidates[0].preset)
        found = Sweep(candidates, started, choice)
        with found:
            try:
                prepared = run_trials(found, options, budget=seconds, reporter=reporter)
            finally:
                _print_trials(found)
            published = publish_best(found, prepared, options, budget=seconds, reporter=reporter)
        reporter.say(f"{found.verdict()}; {time.monotonic() - started:.0f} s of --budget {budget}")
    except KeyboardInterrupt:
        typer.echo("\nStopped. Nothing was published.", err=True)
        if found is not None and found.ranking():
            best = replace(options, preset=found.ranking()[0].preset)
            typer.echo(f"To train the best so far: {best.command(here=True)}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    say_published(published, reporter, store=ModelStore(model_store), location=model_store)


def _named_candidates(tried: Sequence[str], options: FitOptions, validation: float | None) -> "list[Candidate]":
    from training.sweep.candidates import parse_candidate

    if options.effort:
        raise OptionError("--effort and --try both say what to try. Give only one of them.")
    share = _VALIDATION if validation is None else validation
    candidates = [parse_candidate(text, validation=share) for text in tried]
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names) or len(names) < 2:
        raise OptionError("A sweep needs at least two different candidates: --try quick --try quick@0.002.")
    return candidates


def _chosen_candidates(
    options: FitOptions, validation: float | None, budget: float, reporter: Reporter
) -> "list[Candidate]":
    """Return the choice of `fit`, followed by the other candidates of a sweep.

    Raises OptionError if the choice alone takes longer than the budget.
    """
    from training.sweep.candidates import candidate_of, neighbours

    choice = choose(options, reporter)
    if choice.seconds > budget:
        needed = max(1, math.ceil(choice.seconds / 60))
        raise OptionError(
            f"The budget of {budget:g} s is too short: what fit chooses, {choice.preset}, takes about "
            f"{choice.seconds:.0f} s by itself. Give --budget {needed}m or more."
        )
    first = choice.chosen()
    share = (first.recipe.validation or _VALIDATION) if validation is None else validation
    first, *others = (with_recipe(preset, {"validation": share}) for preset in (first, *choice.others))
    return [candidate_of(preset) for preset in (first, *others, *neighbours(first))]


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
            table.add_row(candidate.name, candidate.state, "", "", "", "")
    Console(soft_wrap=True, highlight=False).print(table)
    close = [each.name for each in ranking if (p := found.p_value(each)) is not None and p >= SIGNIFICANT]
    if close:
        pictures = 0 if ranking[0].right is None else len(ranking[0].right)
        typer.echo(
            f"{count_of(pictures, 'validation picture')} cannot tell {ranking[0].name} from: {', '.join(close)}."
        )
