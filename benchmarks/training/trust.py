"""Measure how well a bundle recognises unfamiliar pictures, and whether its rates hold on pictures it has not seen."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, rankdata

from app.contract.answer_options import SetMethod
from app.contract.bundle import FEATURES, Bundle
from app.contract.preprocessing import preprocess
from app.contract.trust import TRUST, Familiarity, Trust
from app.engines.engine import GivesOutputs
from app.engines.loading import load_model
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import table
from benchmarks.training.trust_plots import draw_coverage, draw_roc

ROC = "trust-roc.svg"
COVERAGE = "trust-coverage.svg"

_BATCH = 32
_RATES = (0.01, 0.05, 0.1)
_METHODS: tuple[SetMethod, ...] = ("lac", "aps")
SIGNALS = {"same_kind": "another kind", "clear_class": "between classes", "overall": "both"}
_TIMED = 500
_HALVINGS = 5


@dataclass(frozen=True)
class Seen:
    """What a model makes of some pictures: `features` (N, D), `probabilities` (N, K), and `p_values` (N, 3)."""

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    p_values: NDArray[np.float64]


def measure(bundle: Bundle, familiar: Path, strange: Sequence[Path], *, threads: int, plots: Path) -> str:
    """Return tables in Markdown, and draw two plots into a folder.

    `familiar` has a folder of pictures for each label, `strange` others.

    Raises BenchmarkError if the bundle has no trust.npz, or a folder no picture.
    """
    trust = bundle.trust
    if trust is None:
        raise BenchmarkError(f"{bundle.path} has no {TRUST}. Train it again with validation pictures.")
    loaded = load_model(bundle.path, threads=threads)
    try:
        labels = bundle.manifest.labels
        files = [file for file in pictures_in(familiar) if file.parent.name in labels]
        seen = look(loaded.engine, bundle, trust, files)
        targets = np.array([labels.index(file.parent.name) for file in files])
        others = {folder.name: look(loaded.engine, bundle, trust, pictures_in(folder)) for folder in strange}
    finally:
        loaded.engine.close()
    draw_roc(seen.p_values[:, 0], {name: other.p_values[:, 0] for name, other in others.items()}, plots / ROC)
    draw_coverage(trust, seen.probabilities, targets, plots / COVERAGE)
    bytes_ = (bundle.path / TRUST).stat().st_size
    cost = f"{TRUST} has {bytes_:,} bytes. " + _cost(trust, seen)
    return "\n\n".join(
        [_separation(seen, others), _rates(trust, seen, targets), _by_halves(trust, seen, targets), cost]
    )


def auroc(familiar: NDArray[np.float64], strange: NDArray[np.float64]) -> float:
    """Return how often a strange picture has a lower p-value than a familiar one; a tie counts half."""
    ranks = rankdata(np.concatenate([familiar, strange]))[: len(familiar)]
    return float((ranks.sum() - len(familiar) * (len(familiar) + 1) / 2) / (len(familiar) * len(strange)))


def look(engine: object, bundle: Bundle, trust: Trust, files: Sequence[Path]) -> Seen:
    """Return what the bundle's network makes of pictures. Raises BenchmarkError if the engine gives no features."""
    if not isinstance(engine, GivesOutputs):
        raise BenchmarkError("This engine gives probabilities alone. Measure on another.")
    found: list[dict[str, NDArray[np.float32]]] = []
    for start in range(0, len(files), _BATCH):
        images = [
            preprocess(file.read_bytes(), bundle.manifest.preprocessing) for file in files[start : start + _BATCH]
        ]
        found.append(engine.outputs(np.stack(images)))
    features = np.concatenate([batch[FEATURES] for batch in found])
    probabilities = np.concatenate([batch[bundle.manifest.signature.output.name] for batch in found])
    return Seen(features, probabilities, np.array([trust.familiarity(row) for row in features]))


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures below a folder, in the order of their names. Raises BenchmarkError if there are none."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    if not files:
        raise BenchmarkError(f"{folder} holds no .jpg or .png.")
    return files


def _separation(seen: Seen, others: dict[str, Seen]) -> str:
    rows = []
    columns = [Familiarity._fields.index(signal) for signal in SIGNALS]
    strange = {name: other.p_values for name, other in others.items()}
    if len(strange) > 1:
        strange["all of these"] = np.concatenate(list(strange.values()))
    for name, p_values in strange.items():
        figures = [f"{auroc(seen.p_values[:, column], p_values[:, column]):.4f}" for column in columns]
        caught = [f"{(p_values[:, 0] <= rate).mean():.1%}" for rate in _RATES]
        rows.append([name, f"{len(p_values):,}", *figures, *caught])
    told = [f"found at {rate:.0%}" for rate in _RATES]
    return table(["AUROC against", "pictures", *SIGNALS.values(), *told], rows)


def _rates(trust: Trust, seen: Seen, targets: NDArray[np.int64]) -> str:
    rows = []
    for rate in (rate for rate in _RATES if rate >= trust.least_rate):
        low, high = _band(trust.held_out, rate, len(targets))
        alarms = f"{(seen.p_values[:, 0] <= rate).mean():.2%}"
        sets = []
        for method in _METHODS:
            named = [trust.prediction_set(row, rate, method) for row in seen.probabilities]
            missed = np.mean([target not in labels for target, labels in zip(targets, named, strict=True)])
            sets += [f"{missed:.2%}", f"{np.mean([len(labels) for labels in named]):.2f}"]
        rows.append([f"{rate:.0%}", f"{low:.2%} to {high:.2%}", alarms, *sets])
    header = ["rate", "95 % band", "false alarms", "LAC misses", "labels", "APS misses", "labels"]
    return table(header, rows)


def _by_halves(trust: Trust, seen: Seen, targets: NDArray[np.int64]) -> str:
    """Return the false alarms if half of the pictures calibrate and the other half, from the same source, is fresh."""
    chance = np.random.default_rng(0)
    rates = [rate for rate in _RATES if rate >= 2 / len(targets)]
    alarms = []
    for _ in range(_HALVINGS):
        order = chance.permutation(len(targets))
        held_out, fresh = np.array_split(order, 2)
        again = Trust.calibrated(
            seen.features[held_out],
            seen.probabilities[held_out],
            targets[held_out],
            projection=trust.projection,
            centres=trust.centres,
            kernel=trust.kernel,
            bias=trust.bias,
            references=trust.references[:0],
            reference_labels=trust.reference_labels[:0],
            reference_ids=trust.reference_ids[:0],
        )
        p_values = np.array([again.familiarity(row).overall for row in seen.features[fresh]])
        alarms.append([(p_values <= rate).mean() for rate in rates])
    found = [
        f"{rate:.0%}: {np.mean(each):.2%} ({min(each):.2%} to {max(each):.2%})"
        for rate, each in zip(rates, zip(*alarms, strict=True), strict=True)
    ]
    return f"False alarms by halves of these pictures, {_HALVINGS} times: {', '.join(found)}."


def _band(held_out: int, rate: float, fresh: int) -> tuple[float, float]:
    """Return the band of rates on fresh pictures that holds 95 % of calibrations on this many held-out pictures."""
    rank = int(rate * (held_out + 1) + 1e-9)
    law = betabinom(fresh, rank, held_out + 1 - rank)
    return float(law.ppf(0.025)) / fresh, float(law.ppf(0.975)) / fresh


def _cost(trust: Trust, seen: Seen) -> str:
    rows = np.resize(np.arange(len(seen.features)), _TIMED)
    parts = []
    for name, run in (
        ("familiarity", lambda row: trust.familiarity(seen.features[row])),
        ("neighbours", lambda row: trust.neighbours(seen.features[row])),
        ("a set by LAC", lambda row: trust.prediction_set(seen.probabilities[row], 0.1, "lac")),
        ("a set by APS", lambda row: trust.prediction_set(seen.probabilities[row], 0.1, "aps")),
    ):
        began = time.thread_time()
        for row in rows:
            run(row)
        parts.append(f"{name} {1e6 * (time.thread_time() - began) / _TIMED:.0f} µs")
    return f"CPU time for one picture: {', '.join(parts)}."
