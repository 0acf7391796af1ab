"""Wrong labels are found, right ones are not, and copies do not vouch for each other."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.audit.labels import describe, find_wrong_labels, label_probabilities, suspects
from training.audit.pipeline import AuditOptions, run_audit
from training.data.dataset import Dataset, Picture
from training.progress import Reporter


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """These shapes need no hundreds of filters."""
    monkeypatch.setattr("training.audit.labels._FILTERS_OF_FEW", 40)
    monkeypatch.setattr("training.audit.labels._FILTERS", 40)
    monkeypatch.setattr("training.audit.patches._PATCHES", 4_000)


LABELS = ("bar", "cross", "ring")


def shape(label: str, seed: int) -> NDArray[np.uint8]:
    """Return a 28×28 drawing of a shape, somewhere, somewhat tilted, with noise."""
    random = np.random.default_rng(seed)
    picture = np.zeros((28, 28), np.uint8)
    x, y = (int(place) for place in random.integers(12, 17, 2))
    if label == "ring":
        cv2.circle(picture, (x, y), int(random.integers(5, 9)), 255, 2)
    else:
        lean = int(random.integers(-3, 4))
        cv2.line(picture, (x - lean, y - 8), (x + lean, y + 8), 255, 2)
        if label == "cross":
            cv2.line(picture, (x - 8, y + lean), (x + 8, y - lean), 255, 2)
    return np.asarray(np.clip(picture + random.normal(0, 20, picture.shape), 0, 255), np.uint8)


def shapes(count: int) -> Dataset:
    pictures = [Picture(f"{row:03}", LABELS[row % 3], None, shape(LABELS[row % 3], row)) for row in range(count)]
    return Dataset.of("shapes", pictures)


def renamed(data: Dataset, wrong: dict[str, str]) -> Dataset:
    pictures = [Picture(each.id, wrong.get(each.id, each.label), None, each.content) for each in data.pictures]
    return Dataset.of("shapes", pictures)


def suspected(data: Dataset) -> dict[str, str]:
    findings = run_audit(data, AuditOptions(), Reporter()).findings
    return {finding.pictures[0]: finding.sentence for finding in findings if finding.check == "wrong-label"}


def test_right_labels_are_left_alone() -> None:
    assert suspected(shapes(300)) == {}


def test_wrong_labels_are_found_with_what_they_should_be() -> None:
    wrong = {f"{row:03}": LABELS[(row + 1) % 3] for row in range(0, 300, 13)}
    found = suspected(renamed(shapes(300), wrong))
    assert set(found) == set(wrong)
    for name, label in wrong.items():
        assert found[name].startswith(f"Labelled '{label}', but looks like '{LABELS[int(name) % 3]}'")


def test_a_copy_does_not_vouch_for_its_own_wrong_label() -> None:
    data = shapes(300)
    wrong = [Picture(f"copy-{number}", "ring", None, data.pictures[0].content) for number in range(8)]
    with_copies = Dataset.of("shapes", [*renamed(data, {"000": "ring"}).pictures, *wrong])
    assert {"000", *(each.id for each in wrong)} <= set(suspected(with_copies))


def test_too_few_pictures_are_not_judged() -> None:
    done = run_audit(shapes(60), AuditOptions(near=False), Reporter())
    assert "too few" in done.skipped["wrong-label"]


def test_many_pictures_are_judged_by_the_other_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.audit.labels._FEW", 200)
    wrong = {f"{row:03}": LABELS[(row + 1) % 3] for row in range(0, 300, 29)}
    worst_first = list(suspected(renamed(shapes(300), wrong)))
    assert set(worst_first[: len(wrong)]) == set(wrong)  # it doubts a right one or two as well
    assert len(worst_first) <= len(wrong) + 2


def test_the_same_pictures_are_judged_the_same_every_time() -> None:
    data = shapes(120)
    images = np.stack([each.content for each in data.pictures if isinstance(each.content, np.ndarray)])
    targets = np.arange(120) % 3
    first, second = (
        label_probabilities(describe(images, Reporter()), targets, 3, [str(row) for row in range(120)], Reporter())
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert first.shape == (120, 3)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)


def test_a_stricter_threshold_names_fewer_and_the_worst_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.3, 0.7], [0.1, 0.9], [0.2, 0.8]], np.float32)
    targets = np.array([0, 0, 0, 0, 1, 1])
    rows, likely = suspects(probabilities, targets, 0.8)
    assert (rows.tolist(), likely.tolist()) == ([2, 3], [1, 1])
    assert suspects(probabilities, targets, 1.05)[0].tolist() == [2]
    assert suspects(probabilities, targets, 1.2)[0].tolist() == []
    pictures = [Picture(str(row), "ab"[target], None, np.zeros((2, 2), np.uint8)) for row, target in enumerate(targets)]
    worst, second = find_wrong_labels(pictures, ("a", "b"), probabilities, 0.8)
    assert worst.pictures == ("2",)
    assert worst.score > second.score
