"""The command `python -m training folds`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from app.system.wording import count_of
from training.commands.declared_options import command
from training.data.folds import deal, folds_csv
from training.errors import OptionError
from training.options import DataOption, GroupByOption
from training.preparation import open_inspected
from training.progress import Reporter


@command
def folds(
    data: DataOption,
    count: Annotated[int, typer.Option("--folds", min=2, help="Number of folds.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Random seed of the shuffle; the same as fit's --seed.")
    ] = 0,
    group_by: GroupByOption = None,
    out: Annotated[Path, typer.Option(help="CSV file to write, with the columns id and fold.")] = Path("folds.csv"),
) -> None:
    """Write which pictures `fit --fold 1/N`, `fit --fold 2/N` and so on hold out."""
    reporter = Reporter()
    found = open_inspected(data, in_folds=True, group_by=group_by, reporter=reporter)
    dealt = deal(found.dataset, count=count, seed=seed, together=found.inspection.together)
    try:
        out.write_text(folds_csv(dealt), encoding="utf-8")
    except OSError as exc:
        raise OptionError(f"--out {out} cannot be written: {exc.strerror or exc}.") from exc
    sizes = Counter(dealt.values())
    shown = ", ".join(f"fold {fold}: {count_of(sizes[fold], 'picture')}" for fold in sorted(sizes))
    reporter.say(f"{out}: {shown}")
