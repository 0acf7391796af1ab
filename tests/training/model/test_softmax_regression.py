"""The softmax regression finds the minimum that an independent solver finds, however its features are cut up."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from training.model import softmax_regression
from training.model.softmax_regression import Linear, fit_softmax

CLASSES = 4


def some(count: int = 300, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = random.integers(0, CLASSES, count)
    centres = np.random.default_rng(9).normal(size=(CLASSES, 6))
    return (centres[targets] + random.normal(size=(count, 6))).astype(np.float16), targets


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on to the minimum itself, further than labels need."""
    monkeypatch.setattr(softmax_regression, "_TOLERANCE", 1e-10)
    monkeypatch.setattr(softmax_regression, "_MOST_ITERATIONS", 5000)


def one_hot(targets: np.ndarray) -> np.ndarray:
    return np.asarray(np.eye(CLASSES, dtype=np.float32)[targets])


def agree(layer: Linear, features: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.exp(layer.log_probabilities(features)), expected, atol=0.02)


@pytest.mark.parametrize("decay", [0.1, 0.003])
def test_it_is_the_minimum_that_scikit_learn_finds(decay: float) -> None:
    features, targets = some()
    other = LogisticRegression(C=1 / (decay * len(targets)), max_iter=5000, tol=1e-8).fit(features, targets)
    agree(fit_softmax([features], one_hot(targets), decay=decay), features, other.predict_proba(features))


def test_weights_count_as_repetitions() -> None:
    features, targets = some(100)
    repeats = np.random.default_rng(1).integers(1, 4, 100)
    scaled = (repeats * 100 / repeats.sum()).astype(np.float32)
    weighted = fit_softmax([features], one_hot(targets), decay=0.01, weights=scaled)
    repeated = fit_softmax([features.repeat(repeats, axis=0)], one_hot(targets.repeat(repeats)), decay=0.01)
    agree(weighted, features, np.exp(repeated.log_probabilities(features)))


def test_several_views_are_as_good_as_more_pictures() -> None:
    (one, targets), (other, _) = some(200), some(200, seed=5)
    views = fit_softmax([one, other], one_hot(targets), decay=0.01)
    joined = fit_softmax([np.concatenate([one, other])], one_hot(np.tile(targets, 2)), decay=0.01)
    agree(views, one, np.exp(joined.log_probabilities(one)))


def test_pieces_and_a_start_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = some()
    whole = fit_softmax([features], one_hot(targets), decay=0.01)
    monkeypatch.setattr(softmax_regression, "_PIECE", 7)
    start = fit_softmax([features], one_hot(targets), decay=0.1)
    agree(
        fit_softmax([features], one_hot(targets), decay=0.01, start=start),
        features,
        np.exp(whole.log_probabilities(features)),
    )
