"""The command `python -m training compare`. It measures nothing itself."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from app.contract.store import ModelStore
from app.engines.registry import EngineChoice
from app.system.wording import count_of
from training.commands.declared_options import command
from training.data.sources import open_data
from training.evaluation.compare.bundles import find_bundle
from training.evaluation.compare.comparison import check_comparable
from training.evaluation.compare.comparison import compare as run_comparison
from training.evaluation.compare.tables import print_comparison
from training.evaluation.recorded_split import choose_pictures
from training.options import CacheOption, DataOption, ModelStoreOption
from training.progress import Reporter


@command
def compare(
    a: Annotated[str, typer.Argument(help="A bundle: mnist:1, mnist for the newest version, or a folder.")],
    b: Annotated[str, typer.Argument(help="The bundle to compare it with.")],
    data: DataOption,
    model_store: ModelStoreOption = Path("model_store"),
    split: Annotated[
        Literal["test", "validation", "train", "all"], typer.Option(help="Split of the data to compare on.")
    ] = "test",
    engine: Annotated[EngineChoice, typer.Option(help="Inference engine.")] = "auto",
    cache: CacheOption = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two bundles on the same labelled pictures, and test whether the difference is significant."""
    store = ModelStore(model_store)
    first, second = find_bundle(store, a), find_bundle(store, b)
    check_comparable(first, second)
    reporter = Reporter()
    dataset = open_data(data, say=reporter.say)
    pictures, which = choose_pictures(dataset, first, split)
    found = run_comparison(
        first, second, pictures, origin=dataset.origin, engine=engine, cache=cache, reporter=reporter
    )
    if as_json:
        typer.echo(json.dumps({"which": which, **found.as_dict()}))
    else:
        typer.echo(f"{found.a.name} and {found.b.name} on {count_of(len(pictures), 'picture')}, {which}:")
        print_comparison(found, Console(soft_wrap=True, highlight=False))
