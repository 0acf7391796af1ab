"""Measure how well pictures of an unlearned class are recognised: each class in turn is left out of the last layer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Bundle
from app.contract.trust import TRUST, Familiarity, Trust
from app.engines.loading import load_model
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.table import table
from benchmarks.training.trust import SIGNALS, Seen, auroc, look, pictures_in
from training.bundling.familiar import project
from training.model.softmax_regression import fit_softmax

_SMOOTHING = 0.1
_DECAY = 0.005


def measure(
    bundle: Bundle, train: Path, validation: Path, test: Path, *, threads: int, say: Callable[[str], None]
) -> str:
    """Return a table in Markdown. Each folder has one of pictures for each label.

    The layers below the last one are the bundle's, which may have learned all classes. Raises BenchmarkError if the
    bundle has no trust.npz.
    """
    trust = bundle.trust
    if trust is None:
        raise BenchmarkError(f"{bundle.path} has no {TRUST}. Train it again with validation pictures.")
    labels = bundle.manifest.labels
    loaded = load_model(bundle.path, threads=threads)
    try:
        found = []
        for folder in (train, validation, test):
            files = [file for file in pictures_in(folder) if file.parent.name in labels]
            targets = np.array([labels.index(file.parent.name) for file in files])
            found.append((look(loaded.engine, bundle, trust, files), targets))
            say(f"{len(files):,} pictures of {folder}")
    finally:
        loaded.engine.close()
    rows, scores = [], []
    for label, name in enumerate(labels):
        scores.append(_without(label, len(labels), *found))
        rows.append([name, *(f"{score:.3f}" for score in scores[-1])])
        say(f"without {name}: {', '.join(rows[-1][1:])}")
    rows.append(["mean", *(f"{score:.3f}" for score in np.mean(scores, axis=0))])
    return table(["AUROC of the class left out", *SIGNALS.values(), "highest probability"], rows)


def _without(
    label: int,
    classes: int,
    train: tuple[Seen, NDArray[np.int64]],
    validation: tuple[Seen, NDArray[np.int64]],
    test: tuple[Seen, NDArray[np.int64]],
) -> list[float]:
    def known(seen: Seen, targets: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        kept = targets != label
        return seen.features[kept], targets[kept] - (targets[kept] > label)

    features, targets = known(*train)
    wanted = np.eye(classes - 1, dtype=np.float32)[targets] * (1 - _SMOOTHING) + _SMOOTHING / (classes - 1)
    layer = fit_softmax([features], wanted.astype(np.float32), decay=_DECAY)
    projection, centres = project(features, targets, classes=classes - 1)
    held_out, held_out_targets = known(*validation)
    trust = Trust.calibrated(
        held_out,
        np.exp(layer.log_probabilities(held_out)),
        held_out_targets,
        projection=projection,
        centres=centres,
        kernel=layer.kernel,
        bias=layer.bias,
        references=np.empty((0, projection.shape[1]), np.float32),
        reference_labels=np.empty(0, np.int64),
        reference_ids=np.empty(0, np.str_),
    )
    seen, all_targets = test
    p_values = np.array([trust.familiarity(row) for row in seen.features])
    columns = [p_values[:, Familiarity._fields.index(signal)] for signal in SIGNALS]
    columns.append(layer.log_probabilities(seen.features).max(axis=1).astype(np.float64))
    return [auroc(column[all_targets != label], column[all_targets == label]) for column in columns]
