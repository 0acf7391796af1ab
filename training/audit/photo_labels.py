"""Judge the labels of photos by the features of a network trained on ImageNet, which separates classes that thumbnails
do not.

A softmax regression is fitted on these features, in folds. A label is reported by its odds, not by the confident joint,
which also reports correct labels if classes look alike, as shirts and T-shirts do.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.audit.labels import FOLDS, folds_of
from training.audit.registration import Floats
from training.model.softmax_regression import fit_softmax
from training.progress import Reporter

_DECAY = 0.03  # of the regression: a strong one does not learn wrong labels by heart
_MOST_ODDS = 6.0
_SHARE_OF_USUAL = 0.75


def photo_probabilities(
    features: NDArray[np.float16],
    targets: NDArray[np.int64],
    classes: int,
    units: Sequence[str],
    reporter: Reporter,
) -> Floats:
    """Return out-of-fold probabilities (N, K) for photos' features (N, D); those of one unit are in one fold."""
    folds = folds_of(units)
    wanted = np.eye(classes, dtype=np.float32)[targets]
    probabilities = np.empty_like(wanted)
    with reporter.task("cross-validating the labels", FOLDS) as advance:
        for fold in range(FOLDS):
            learned, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            layer = fit_softmax([features[learned]], wanted[learned], decay=_DECAY)
            probabilities[held] = np.exp(layer.log_probabilities(features[held]))
            advance(1, "")
    return probabilities


def unlikely(
    probabilities: Floats, targets: NDArray[np.int64], strictness: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows whose labels are likely wrong, worst first, and the classes that they likely belong to.

    Another class has to be six times as likely as the picture's own. If the model is seldom that confident, because
    many labels are wrong or classes look alike, three quarters of its usual log odds are enough. `strictness`
    multiplies both logarithms.
    """
    every = np.arange(len(targets))
    logs = np.log(probabilities + np.float32(1e-12))
    own = logs[every, targets]
    logs[every, targets] = -np.inf
    likely = logs.argmax(axis=1)
    against = logs[every, likely] - own
    least = min(np.log(_MOST_ODDS), _SHARE_OF_USUAL * float(np.median(np.abs(against)))) * strictness
    wrong = np.flatnonzero((against > least) & (against > 0))
    worst = np.argsort(probabilities[wrong, targets[wrong]] - probabilities[wrong, likely[wrong]], kind="stable")
    return wrong[worst], likely[wrong[worst]]
