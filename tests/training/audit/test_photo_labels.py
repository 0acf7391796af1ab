"""Labels of photos are judged by ImageNet's features if their weights are there, and doubted by odds."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from tests.training.audit.conftest import scene
from training.audit.cache import Cache
from training.audit.image_stats import Look, look_at_all, scale_of
from training.audit.label_models import OF_THUMBNAILS, label_model
from training.audit.photo_labels import photo_probabilities, unlikely
from training.audit.pipeline import AuditOptions, run_audit
from training.data.dataset import Dataset, Picture
from training.data.tensor_cache import NO_CACHE
from training.progress import Reporter

KINDS = 4


def features_of(kinds: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return features (N, 64), as large as a backbone's, of pictures that show these kinds of things."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 0.6, (KINDS, 64))
    return (centres[kinds] + random.normal(0, 0.2, (len(kinds), 64))).astype(np.float16)


def mislabelled(kinds: NDArray[np.int64], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    targets = kinds.copy()
    targets[rows] = (targets[rows] + 1) % KINDS
    return targets


def judged(
    features: NDArray[np.float16], targets: NDArray[np.int64], units: Sequence[str] | None = None
) -> NDArray[np.float32]:
    own = [str(row) for row in range(len(targets))]
    return photo_probabilities(features, targets, KINDS, units or own, Reporter())


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_wrong_labels_are_found_however_many_there_are(share: float) -> None:
    kinds = np.arange(400) % KINDS
    wrong = np.random.default_rng(0).permutation(400)[: round(400 * share)]
    targets = mislabelled(kinds, wrong)
    rows, likely = unlikely(judged(features_of(kinds), targets), targets, 1.0)
    assert set(rows.tolist()) <= set(wrong.tolist())
    assert len(rows) >= 0.75 * len(wrong)
    np.testing.assert_array_equal(likely, kinds[rows])


def test_right_labels_are_left_alone_and_classes_that_look_alike_are_not_doubted() -> None:
    kinds = np.arange(400) % KINDS
    assert len(unlikely(judged(features_of(kinds), kinds), kinds, 1.0)[0]) == 0
    alike = np.where(kinds == 3, 2, kinds)  # the last two look the same
    assert len(unlikely(judged(features_of(alike), kinds), kinds, 1.0)[0]) <= 4


def test_a_copy_does_not_vouch_for_its_own_wrong_label() -> None:
    kinds = np.concatenate([np.arange(400) % KINDS, np.zeros(8, np.int64)])
    features = features_of(kinds)
    features[400:] = features[0]
    targets = mislabelled(kinds, [0, *range(400, 408)])
    units = [str(row) for row in range(400)] + ["0"] * 8
    assert {0, *range(400, 408)} <= set(unlikely(judged(features, targets, units), targets, 1.0)[0].tolist())


def test_the_worst_come_first_and_a_stricter_threshold_names_fewer() -> None:
    probabilities = np.array(
        [[0.05, 0.95], [0.001, 0.999], [0.3, 0.7], [0.99, 0.01], [0.98, 0.02], [0.97, 0.03]], np.float32
    )
    targets = np.zeros(6, np.int64)
    rows, likely = unlikely(probabilities, targets, 1.0)
    assert (rows.tolist(), likely.tolist()) == ([1, 0], [1, 1])
    assert unlikely(probabilities, targets, 3.0)[0].tolist() == [1]
    assert unlikely(probabilities, targets, 0.0)[0].tolist() == [1, 0, 2]


def pictures(side: int, *, coloured: bool = True) -> list[Picture]:
    made = (scene(row, side) for row in range(8))
    return [Picture(str(row), "ab"[row % 2], None, each if coloured else each[..., 0]) for row, each in enumerate(made)]


def looks_at(found: Sequence[Picture]) -> list[Look]:
    return look_at_all(found, scale_of(found), lambda count: None)


def chosen(found: Sequence[Picture], *, weights: Path | None, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return the chosen model's name, and what was said."""
    monkeypatch.setattr("training.audit.label_models.installed_weights", lambda: weights)
    said = StringIO()
    reporter = Reporter(Console(file=said, width=500))
    return label_model(looks_at(found), scale_of(found), NO_CACHE, reporter).name, said.getvalue()


@pytest.mark.parametrize(
    ("side", "coloured", "name"),
    [(200, True, "efficientnet_lite0"), (100, True, "thumbnails"), (200, False, "thumbnails")],
)
def test_only_large_pictures_in_colour_are_photos(
    side: int, coloured: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pictures(side, coloured=coloured)
    assert chosen(found, weights=Path("weights"), monkeypatch=monkeypatch) == (name, "")


def test_photos_with_a_few_grey_ones_among_them_are_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*pictures(200), *pictures(200, coloured=False)[:3]]
    assert chosen(found, weights=Path("weights"), monkeypatch=monkeypatch)[0] == "efficientnet_lite0"


def test_without_the_weights_thumbnails_are_judged_and_one_line_says_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, said = chosen(pictures(200), weights=None, monkeypatch=monkeypatch)
    assert name == "thumbnails"
    assert "make setup-training" in said
    assert said.count("\n") == 1


def test_the_audit_asks_the_chosen_model_and_caches_answers_of_each_model_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = np.arange(120) % 2
    shown = [Picture(f"{row:03}", "ab"[kinds[row]], None, scene(row, 32)) for row in range(120)]
    data = Dataset.of("data", [replace(each, label="b") if each.id == "004" else each for each in shown])
    asked: list[str] = []

    def describe(found: Sequence[Picture], _looks: Sequence[Look], _reporter: Reporter) -> NDArray[np.float16]:
        asked.append("features")
        return features_of(kinds[[int(each.id) for each in found]])

    def audit() -> list[str]:
        options = AuditOptions(near=False, cache=Cache(tmp_path, "data"))
        findings = run_audit(data, options, Reporter()).findings
        return [each.pictures[0] for each in findings if each.check == "wrong-label"]

    monkeypatch.setattr("training.audit.labels._FILTERS_OF_FEW", 20)
    audit()
    with_features = replace(
        OF_THUMBNAILS, name="x", describe=describe, probabilities=photo_probabilities, rule=unlikely
    )
    monkeypatch.setattr("training.audit.pipeline.label_model", lambda *_: with_features)
    assert audit() == ["004"]
    assert audit() == ["004"]
    assert asked == ["features"]
