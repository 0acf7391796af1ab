"""The command `python -m training compare`. It measures nothing itself."""

import json
from typing import Literal

import typer
from rich.console import Console

from app.contract.store import ModelStore
from app.engines.registry import EngineChoice
from training.data.dataset import Split
from training.data.sources import open_data
from training.evaluation.compare.bundles import find_bundle
from training.evaluation.compare.comparison import check_comparable
from training.evaluation.compare.comparison import compare as run_comparison
from training.evaluation.compare.tables import print_comparison
from training.evaluation.measure import choose_pictures
from training.progress import Reporter


def compare(
    a: str,
    b: str,
    *,
    data: str,
    store: ModelStore,
    split: Split | Literal["all"],
    engine: EngineChoice,
    cache: bool,
    as_json: bool,
    reporter: Reporter,
) -> None:
    """Compare the bundles that `a` and `b` mean on `data`, and print the result. Raises an ImageclassError."""
    first, second = find_bundle(store, a), find_bundle(store, b)
    check_comparable(first, second)
    dataset = open_data(data)
    pictures, which = choose_pictures(dataset, first, split)
    found = run_comparison(
        first, second, pictures, origin=dataset.origin, engine=engine, cache=cache, reporter=reporter
    )
    if as_json:
        typer.echo(json.dumps({"which": which, **found.as_dict()}))
    else:
        typer.echo(f"{found.a.name} and {found.b.name} on {which}, {len(pictures):,}:")
        print_comparison(found, Console(soft_wrap=True, highlight=False))
