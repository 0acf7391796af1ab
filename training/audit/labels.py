"""Find labels that are likely wrong: compare them with the predictions of a model that has not seen the picture.

The model is ridge regression on patch features, in folds: its fit has a closed form, and a share of wrong labels only
shrinks its outputs, while a network would memorise them. Copies, and pictures of a group, are in one fold, so no model
judges a picture after training on its copy. It knows nothing of files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from training.audit.findings import Finding
from training.audit.neighbours import Thumbnails
from training.audit.patches import patch_features
from training.audit.registration import Floats
from training.data.dataset import Picture
from training.progress import Advance, Reporter

FEWEST_PICTURES = 100
FOLDS = 5
_SEED = 0
# up to this number of pictures, the kernel's (N, N) problem is the smaller one, and curved boundaries help
_FEW = 5_000
_FILTERS_OF_FEW, _GRID_OF_FEW, _RIDGE_OF_FEW = 300, 4, 0.1
_FILTERS, _GRID, _RIDGE = 256, 3, 0.01
_ROWS_AT_ONCE = 2_000
_MOST_LIKELY = 9
_SHARPNESS = 14.0  # scores of the classes lie within [0, 1], a tenth apart if the model is unsure

Rule = Callable[[Floats, NDArray[np.int64], float], tuple[NDArray[np.intp], NDArray[np.intp]]]
"""A function of probabilities (N, K), targets (N,) and a strictness.

It returns the rows whose labels are likely wrong, worst first, and the classes that they likely belong to.
"""


def describe(thumbnails: Thumbnails, reporter: Reporter) -> NDArray[np.float16]:
    """Return the features (N, D) of pictures (N, S, S) from which `label_probabilities` learns."""
    filters, grid = (_FILTERS_OF_FEW, _GRID_OF_FEW) if len(thumbnails) <= _FEW else (_FILTERS, _GRID)
    with reporter.task("describing pictures", len(thumbnails)) as advance:
        return patch_features(
            thumbnails, filters=filters, grid=grid, seed=_SEED, advance=lambda count: advance(count, "")
        )


def label_probabilities(
    features: NDArray[np.float16],
    targets: NDArray[np.int64],
    classes: int,
    units: Sequence[str],
    reporter: Reporter,
) -> Floats:
    """Return out-of-fold probabilities (N, K) for pictures' features (N, D); those of one unit are in one fold."""
    folds = folds_of(units)
    few = len(features) <= _FEW
    wanted = np.eye(classes, dtype=np.float32)[targets]
    with reporter.task("cross-validating the labels", FOLDS) as advance:
        scores = _by_kernel(features, wanted, folds, advance) if few else _by_ridge(features, wanted, folds, advance)
    odds = np.exp(_SHARPNESS * (scores - scores.max(axis=1, keepdims=True)))
    probabilities: Floats = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def suspects(
    probabilities: Floats, targets: NDArray[np.int64], strictness: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows whose labels are likely wrong, worst first, and the classes that they likely belong to.

    A picture counts as one of a class if the class's probability is at least its mean over the pictures with that
    label: the confident joint of Northcutt, Jiang and Chuang 2021 (arXiv:1911.00068). `strictness` multiplies that
    mean.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(targets)), targets]
    level = np.array([own[targets == place].mean() if (targets == place).any() else 1 for place in range(classes)])
    likely = np.where(probabilities >= level * strictness, probabilities, -1).argmax(axis=1)
    counts = probabilities[np.arange(len(targets)), likely] >= level[likely] * strictness
    wrong = np.flatnonzero(counts & (likely != targets))
    worst = np.argsort(own[wrong] - probabilities[wrong, likely[wrong]], kind="stable")
    return wrong[worst], likely[wrong[worst]]


def find_wrong_labels(
    pictures: Sequence[Picture],
    labels: Sequence[str],
    probabilities: Floats,
    strictness: float,
    rule: Rule = suspects,
) -> Iterator[Finding]:
    """Make a finding of each label that is likely wrong by `rule`; `probabilities` (N, K) has a row per picture."""
    place = {label: index for index, label in enumerate(labels)}
    targets = np.array([place[picture.label] for picture in pictures], np.int64)
    for row, likely in zip(*rule(probabilities, targets, strictness), strict=True):
        own, other = float(probabilities[row, targets[row]]), float(probabilities[row, likely])
        yield Finding(
            "wrong-label",
            (pictures[row].id,),
            other - own,
            f"Labelled '{pictures[row].label}', but looks like '{labels[likely]}' ({other:.2f} against {own:.2f}).",
            likeliest(probabilities[row], labels),
        )


def likeliest(probabilities: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the most probable classes by probabilities (K,), at most nine, each with its probability."""
    first = np.argsort(-probabilities, kind="stable")[:_MOST_LIKELY]
    return tuple((labels[place], float(probabilities[place])) for place in first)


def folds_of(units: Sequence[str]) -> NDArray[np.intp]:
    """Return the fold of each picture, 0 to FOLDS - 1: pictures of one unit are in one."""
    names = list(dict.fromkeys(units))
    order = np.random.default_rng(_SEED).permutation(len(names)) % FOLDS
    fold_of: Mapping[str, int] = dict(zip(names, order.tolist(), strict=True))
    return np.array([fold_of[unit] for unit in units], np.intp)


def _by_ridge(features: NDArray[np.float16], wanted: Floats, folds: NDArray[np.intp], advance: Advance) -> Floats:
    """Solve for the weights of the features, without each fold in turn.

    The fold's share is subtracted from the sums over all pictures.
    """
    size = features.shape[1]
    level = np.float32(1 / wanted.shape[1])
    grams = np.zeros((FOLDS, size, size), np.float32)
    products = np.zeros((FOLDS, size, wanted.shape[1]), np.float32)
    for fold in range(FOLDS):
        for rows in _blocks(np.flatnonzero(folds == fold)):
            block = features[rows].astype(np.float32)
            grams[fold] += block.T @ block
            products[fold] += block.T @ (wanted[rows] - level)
    gram, product = grams.sum(axis=0), products.sum(axis=0)
    ridge = np.float32(_RIDGE * len(features))
    scores = np.empty_like(wanted)
    for fold in range(FOLDS):
        system = gram - grams[fold]
        system[np.diag_indices(size)] += ridge
        weights = scipy.linalg.solve(system, product - products[fold], assume_a="pos", overwrite_a=True)
        for rows in _blocks(np.flatnonzero(folds == fold)):
            scores[rows] = features[rows].astype(np.float32) @ weights + level
        advance(1, "")
    return scores


def _by_kernel(features: NDArray[np.float16], wanted: Floats, folds: NDArray[np.intp], advance: Advance) -> Floats:
    """Solve for a weight per picture, with a wide Gaussian kernel on features of length 1."""
    unit = features.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True) + np.float32(1e-6)
    kernel = np.exp(2 * (unit @ unit.T - 1))
    level = np.float32(1 / wanted.shape[1])
    scores = np.empty_like(wanted)
    for fold in range(FOLDS):
        held, learned = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        system = kernel[np.ix_(learned, learned)] + np.float32(_RIDGE_OF_FEW) * np.eye(len(learned), dtype=np.float32)
        weights = scipy.linalg.solve(system, wanted[learned] - level, assume_a="pos")
        scores[held] = kernel[np.ix_(held, learned)] @ weights + level
        advance(1, "")
    return scores


def _blocks(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[begin : begin + _ROWS_AT_ONCE]
