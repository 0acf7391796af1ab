"""Train and test presets on every fold, by person and at random, through `fit`, and write the table.

The folds by person are published beside this file, `signs_folds.csv`: no person is in two of them. A random split has
pictures of most people on both sides, which raises its accuracy.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.engines.loading import LoadedModel
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import table
from training.data.folds import Fold, folds_csv
from training.data.split import read_split_file, read_splits
from training.evaluation.interval import wilson
from training.model.preset import Preset
from training.options import FitOptions
from training.pipeline import train_and_publish
from training.progress import Reporter

PUBLISHED = Path(__file__).with_name("signs_folds.csv")
BY_PERSON, AT_RANDOM = "by person", "at random"


@dataclass(frozen=True)
class FoldResult:
    """The results of one fold's model on the held-out pictures. `confusion` (K, K): true by predicted.

    `seconds` is the wall-clock time of the training alone; `cpu_seconds` includes reading, measuring and export.
    """

    fold: Fold
    tested: frozenset[str]
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    parameters: int
    seconds: float
    cpu_seconds: float


Found = dict[tuple[str, str], list[FoldResult]]
"""The results by preset and way to split."""


def measure_folds(data: str, preset: Preset, *, count: int, seed: int, group_by: str | None) -> Iterator[FoldResult]:
    """Hold out each fold in turn, and yield the results of the model trained on the others. Raises ImageclassErrors."""
    for number in range(1, count + 1):
        with tempfile.TemporaryDirectory() as store:
            options = FitOptions(
                data=data,
                name="signs",
                preset=preset,
                model_store=Path(store),
                seed=seed,
                test=0.0,
                size=None,
                colour=None,
                on_bad_image="fail",
                about=None,
                fold=Fold(number, count),
                group_by=group_by,
            )
            started = time.process_time()
            published = train_and_publish(options, Reporter())
            yield _result(Fold(number, count), published, cpu_seconds=time.process_time() - started)


def check_published(results: Sequence[FoldResult]) -> None:
    """Raise BenchmarkError if the tested folds are not the published ones."""
    tested = {picture: result.fold.number for result in results for picture in result.tested}
    if folds_csv(dict(sorted(tested.items()))) != PUBLISHED.read_text(encoding="utf-8"):
        raise BenchmarkError(f"The folds are not those of {PUBLISHED.name}: other data, --seed or --folds.")


def markdown(found: Found, notes: Sequence[str]) -> str:
    """Return a row for each preset and way to split, recall by class, the gap of random splits, and the notes."""
    header = (
        "preset",
        "split",
        "folds",
        "pictures",
        "accuracy",
        "95 % interval",
        "worst class",
        "parameters",
        "seconds a fold",
        "CPU",
    )
    labels = next(iter(found.values()))[0].labels
    rows = [[*of, *_cells(results)] for of, results in found.items()]
    recalls = [[*of, *(f"{recall:.2%}" for recall in _recalls(results))] for of, results in found.items()]
    parts = [table(header, rows), table(("preset", "split, recall of", *labels), recalls)]
    lines = [f"- {preset}: a random split looks {100 * gap:+.2f} points better" for preset, gap in _gaps(found)]
    parts.append("\n".join([*lines, *(f"- {note}" for note in notes)]))
    return "\n\n".join(parts) + "\n"


def _gaps(found: Found) -> list[tuple[str, float]]:
    """Return the gap in accuracy between random folds and folds by person, for every preset measured in both ways."""
    return [
        (preset, _accuracy(found[preset, AT_RANDOM]) - _accuracy(results))
        for (preset, split), results in found.items()
        if split == BY_PERSON and (preset, AT_RANDOM) in found
    ]


def _result(fold: Fold, published: LoadedModel, *, cpu_seconds: float) -> FoldResult:
    bundle = published.bundle
    metrics = bundle.metrics()
    splits = read_splits(read_split_file(bundle.path) or "")
    return FoldResult(
        fold=fold,
        tested=frozenset(picture for picture, split in splits.items() if split == "test"),
        labels=bundle.manifest.labels,
        confusion=np.array(metrics["test"]["confusion"], np.int64),
        parameters=metrics["parameters"],
        seconds=metrics["fit_seconds"],
        cpu_seconds=cpu_seconds,
    )


def _cells(results: Sequence[FoldResult]) -> list[str]:
    confusion = _pooled(results)
    right, pictures = int(np.trace(confusion)), int(confusion.sum())
    low, high = wilson(right, pictures)
    recalls = _recalls(results)
    worst = int(np.argmin(recalls))
    return [
        f"{len(results)} of {results[0].fold.count}",
        f"{pictures:,}",
        f"{right / pictures:.2%}",
        f"{low:.2%} to {high:.2%}",
        f"{results[0].labels[worst]}: {recalls[worst]:.2%}",
        f"{results[0].parameters:,}",
        f"{np.mean([result.seconds for result in results]):,.0f} (at most {max(r.seconds for r in results):,.0f})",
        f"{np.mean([result.cpu_seconds for result in results]):,.0f}",
    ]


def _pooled(results: Sequence[FoldResult]) -> NDArray[np.int64]:
    pooled: NDArray[np.int64] = np.sum([result.confusion for result in results], axis=0)
    return pooled


def _accuracy(results: Sequence[FoldResult]) -> float:
    confusion = _pooled(results)
    return float(np.trace(confusion) / confusion.sum())


def _recalls(results: Sequence[FoldResult]) -> list[float]:
    confusion = _pooled(results)
    return [float(recall) for recall in confusion.diagonal() / np.maximum(1, confusion.sum(axis=1))]
