"""The command `python -m training sweep`. It trains nothing itself."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table

from app.engines.loading import LoadedModel
from training.errors import OptionError
from training.evaluation.compare.paired import SIGNIFICANT
from training.options import FitOptions
from training.progress import Reporter
from training.sweep.halving import Candidate, Sweep, parse_budget, publish_best, run_trials


def sweep(candidates: Sequence[Candidate], options: FitOptions, *, budget: str, reporter: Reporter) -> LoadedModel:
    """Try the candidates, print what came of them whatever stops it, publish the best. Raises an ImageclassError."""
    seconds = parse_budget(budget)
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names) or len(names) < 2:
        raise OptionError("A sweep takes two candidates at least, each once: --try quick --try quick@0.002.")
    found = Sweep(candidates)
    try:
        run_trials(found, options, budget=seconds, reporter=reporter)
    finally:
        _print(found)
    return publish_best(found, options, budget=seconds, reporter=reporter)


def _print(found: Sweep) -> None:
    ranking = found.ranking()
    table = Table("candidate", "validation accuracy", "epochs", "s an epoch", "p against the best")
    for candidate in ranking:
        p_value = found.p_value(candidate)
        table.add_row(
            candidate.name,
            f"{candidate.accuracy:.2%}",
            str(candidate.epochs),
            f"{candidate.seconds_per_epoch:.1f}",
            "" if p_value is None else f"{p_value:.2g}",
        )
    for candidate in found.candidates:
        if candidate not in ranking:
            table.add_row(candidate.name, "failed" if candidate.failure else "not tried", "", "", "")
    Console(soft_wrap=True, highlight=False).print(table)
    close = [each.name for each in ranking if (p := found.p_value(each)) is not None and p >= SIGNIFICANT]
    if close:
        pictures = 0 if ranking[0].right is None else len(ranking[0].right)
        typer.echo(f"{pictures:,} validation pictures cannot tell {ranking[0].name} from: {', '.join(close)}.")
