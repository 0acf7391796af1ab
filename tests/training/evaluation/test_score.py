import numpy as np
import pytest

from training.evaluation.score import predict_all, score

LABELS = ("cat", "dog", "fox")
PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]], np.float32)
TARGETS = np.array([0, 1, 1, 1])


def test_accuracy_and_confusion_count_what_was_predicted() -> None:
    scores = score(PROBABILITIES, TARGETS, LABELS, loss="crossentropy")
    assert scores.accuracy == 0.75
    assert scores.confusion.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]


def test_precision_and_recall_by_class() -> None:
    by_class = score(PROBABILITIES, TARGETS, LABELS, loss="crossentropy").by_class
    assert (by_class["cat"].precision, by_class["cat"].recall) == (0.5, 1.0)
    assert by_class["dog"].precision == 1.0
    assert by_class["dog"].recall == pytest.approx(2 / 3)


def test_a_class_that_never_occurs_and_is_never_predicted_has_no_figures() -> None:
    fox = score(PROBABILITIES, TARGETS, LABELS, loss="crossentropy").by_class["fox"]
    assert (fox.precision, fox.recall, fox.pictures) == (None, None, 0)


def test_cross_entropy_is_the_mean_negative_logarithm() -> None:
    expected = -np.log([0.8, 0.7, 0.3, 0.8]).mean()
    assert score(PROBABILITIES, TARGETS, LABELS, loss="crossentropy").loss == pytest.approx(expected, rel=1e-6)


def test_mean_squared_error_is_over_all_classes() -> None:
    one_hot = np.eye(3)[TARGETS]
    expected = ((PROBABILITIES - one_hot) ** 2).mean()
    assert score(PROBABILITIES, TARGETS, LABELS, loss="mse").loss == pytest.approx(expected, rel=1e-6)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    certain = np.array([[0.0, 1.0, 0.0]], np.float32)
    assert np.isfinite(score(certain, np.array([0]), LABELS, loss="crossentropy").loss)


def test_pictures_are_predicted_in_batches_and_in_order() -> None:
    images = np.arange(1000, dtype=np.uint8).reshape(1000, 1, 1, 1)
    sizes: list[int] = []
    found = predict_all(lambda batch: batch.reshape(-1, 1).astype(np.float32), images, sizes.append)
    assert found[:, 0].tolist() == images.ravel().tolist()
    assert sum(sizes) == 1000
    assert max(sizes) < 1000
