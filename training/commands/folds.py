"""The command `python -m training folds`: write down which pictures each `fit --fold` holds out."""

from collections import Counter
from pathlib import Path

from app.system.cache_folder import cache_folder
from training.audit.cache import Cache
from training.audit.groups import groups_of
from training.audit.inspection import inspect
from training.data.folds import deal, folds_csv
from training.data.sources import open_data
from training.errors import OptionError
from training.progress import Reporter


def run_folds(data: str, *, count: int, seed: int, group_by: str | None, out: Path, reporter: Reporter) -> None:
    """Deal `data` into folds as `fit` does, and write `id,fold` rows. Raises an ImageclassError."""
    dataset = open_data(data)
    inspection = inspect(
        dataset,
        groups={} if group_by is None else groups_of(dataset, data, group_by),
        divides=True,
        allow_leakage=False,
        cache=Cache(cache_folder("audit"), data),
        reporter=reporter,
    )
    folds = deal(dataset, count=count, seed=seed, together=inspection.together)
    try:
        out.write_text(folds_csv(folds), encoding="utf-8")
    except OSError as exc:
        raise OptionError(f"--out {out} cannot be written: {exc.strerror or exc}.") from exc
    sizes = Counter(folds.values())
    reporter.say(f"{out}: {', '.join(f'fold {fold}: {sizes[fold]:,} pictures' for fold in sorted(sizes))}")
