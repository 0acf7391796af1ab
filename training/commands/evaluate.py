"""The command `python -m training evaluate`. It measures nothing itself."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from app.contract.bundle import open_bundle
from app.contract.store import ModelStore
from app.engines.registry import EngineChoice
from app.system.wording import count_of
from training.audit.groups import groups_of
from training.commands.declared_options import command
from training.data.sources import open_data
from training.evaluation.acceptance import check_recall, check_requirements
from training.evaluation.baseline import find_baseline, score_baseline
from training.evaluation.bundle_evaluation import BundleEvaluation, evaluate_bundle
from training.evaluation.calibration.tables import print_calibration
from training.evaluation.recorded_split import choose_pictures
from training.evaluation.tables import print_scores
from training.options import (
    AgainstOption,
    CacheOption,
    DataOption,
    GroupByOption,
    MaxRecallDropOption,
    ModelStoreOption,
    OnBadImageOption,
    RequireOption,
)
from training.progress import Reporter


@command
def evaluate(
    data: DataOption,
    model: Annotated[str, typer.Option(help="Name of the model in the store.", show_default=False)],
    version: Annotated[int | None, typer.Option(help="Version. (default: the newest, held back or not)")] = None,
    model_store: ModelStoreOption = Path("model_store"),
    split: Annotated[
        Literal["test", "validation", "train", "all"], typer.Option(help="Split of the data to evaluate on.")
    ] = "test",
    engine: Annotated[EngineChoice, typer.Option(help="Inference engine.")] = "auto",
    url: Annotated[
        str | None,
        typer.Option(
            help="Evaluate the service at this address, and compare its answers with the bundle's in process."
        ),
    ] = None,
    on_bad_image: OnBadImageOption = "fail",
    cache: CacheOption = True,
    group_by: GroupByOption = None,
    requirements: RequireOption = (),
    against: AgainstOption = None,
    max_recall_drop: MaxRecallDropOption = 0.02,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate a bundle, or a running service, on labelled pictures.

    The exit code is 1 if it fails --require or --against.
    """
    reporter = Reporter()
    store = ModelStore(model_store)
    path = store.newest(model) if version is None else store.path(model, version)
    baseline = None if against is None else find_baseline(store, model, against)
    bundle, dataset = open_bundle(path), open_data(data, say=reporter.say)
    pictures, which = choose_pictures(dataset, bundle, split)
    evaluation = evaluate_bundle(
        bundle,
        pictures,
        engine=engine,
        url=url,
        on_bad_image=on_bad_image,
        groups=groups_of(dataset, data, group_by),
        reporter=reporter,
        cache=cache,
    )
    before = None
    if baseline is not None:
        before = score_baseline(baseline, evaluation.pictures, engine=engine, cache=cache, reporter=reporter)
    _print_evaluation(model, which, evaluation, as_json=as_json)
    scores = evaluation.scores.as_dict()
    check_requirements(scores, requirements, on=which)
    if baseline is not None and before is not None:
        check_recall(scores, before, version=baseline.version, max_drop=max_recall_drop, on=which)


def _print_evaluation(model: str, which: str, evaluation: BundleEvaluation, *, as_json: bool) -> None:
    agreement = evaluation.agreement
    if as_json:
        found = {"which": which, "measured": evaluation.engine, **evaluation.scores.as_dict()}
        found["calibration"] = evaluation.calibration
        if agreement is not None:
            found["agreement"] = {
                "pictures": agreement.pictures,
                "same_label": agreement.same_label,
                "max_probability_difference": agreement.max_probability_difference,
            }
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{model} on {which}, by {evaluation.engine}")
    console = Console(soft_wrap=True, highlight=False)
    print_scores(evaluation.scores, console)
    print_calibration(evaluation.calibration, console)
    if agreement is not None:
        typer.echo(
            f"Compared with the bundle in process: the same label for {agreement.same_label:,} of "
            f"{count_of(agreement.pictures, 'picture')}, probabilities differ by "
            f"{agreement.max_probability_difference:.1e} at most."
        )
