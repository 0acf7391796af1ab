"""What familiar pictures look like, and what is made of it."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contract.answer_options import SetMethod
from app.contract.trust import Trust
from training.bundling.familiar import project, thinned

D, K = 12, 3


@pytest.fixture(scope="module")
def world() -> tuple[Trust, np.random.Generator, np.ndarray[Any, Any]]:
    """A model of three classes in twelve dimensions, calibrated on 400 pictures, and the classes' features."""
    chance = np.random.default_rng(1)
    means = np.abs(chance.normal(size=(K, D))).astype(np.float32) * 4
    targets = chance.integers(0, K, 900)
    features = draw(chance, means, targets)
    kernel, bias = means.T.copy(), -0.5 * (means**2).sum(axis=1)
    logits = features @ kernel + bias
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    projection, centres = project(features[:500], targets[:500], classes=K)
    trust = Trust.calibrated(
        features[500:],
        probabilities[500:],
        targets[500:],
        projection=projection.astype(np.float16).astype(np.float32),
        centres=centres,
        kernel=kernel.astype(np.float16).astype(np.float32),
        bias=bias,
        references=np.eye(4, projection.shape[1], dtype=np.float32),
        reference_labels=np.array([0, 1, 2, 0]),
        reference_ids=np.array(["a/0.png", "b/1.png", "c/2.png", "a/3.png"]),
    )
    return trust, chance, means


def draw(chance: np.random.Generator, means: np.ndarray[Any, Any], targets: Any) -> np.ndarray[Any, Any]:
    return np.asarray(means[targets] + chance.normal(size=(len(targets), means.shape[1])), np.float32)


def test_false_alarms_are_as_many_as_asked_for(world: tuple[Trust, np.random.Generator, np.ndarray[Any, Any]]) -> None:
    trust, chance, means = world
    fresh = draw(chance, means, chance.integers(0, K, 3000))
    found = np.array([trust.familiarity(row) for row in fresh])
    for rate in (0.05, 0.2):
        # The beta-binomial spread of 400 held-out and 3,000 fresh pictures.
        spread = np.sqrt(rate * (1 - rate) * (1 / 400 + 1 / 3000))
        assert abs((found <= rate).mean(axis=0) - rate).max() < 3 * spread


def test_what_lies_elsewhere_is_unfamiliar(world: tuple[Trust, np.random.Generator, np.ndarray[Any, Any]]) -> None:
    trust, _, means = world
    elsewhere = np.zeros(D, np.float32)
    elsewhere[0] = -9
    assert trust.familiarity(elsewhere).overall < 0.01
    assert trust.familiarity(means[0]).overall > 0.2
    assert trust.familiarity(means.mean(axis=0)).clear_class < trust.familiarity(means[0]).clear_class


def test_a_file_brings_back_the_same_numbers(world: tuple[Trust, np.random.Generator, np.ndarray[Any, Any]]) -> None:
    trust, _, means = world
    again = Trust.from_npz(trust.to_npz(), features=D, classes=K)
    for mean in means:
        assert again.familiarity(mean) == trust.familiarity(mean)
        assert again.neighbours(mean) == trust.neighbours(mean)
        assert again.neighbours(mean)[0].id.endswith(".png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": np.zeros(K + 1)}, "bias"),
        ({"kernel": np.full((D, K), np.nan)}, "kernel is not finite"),
        ({"reference_labels": np.array([0, 1, 2, 9])}, "labels that the model does not have"),
        ({"kind_scores": np.arange(400.0)[::-1]}, "kind_scores is not sorted"),
        ({"aps_scores": np.zeros(3)}, "aps_scores"),
        ({"reference_ids": np.array([b"a"] * 4)}, "reference_ids"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    world: tuple[Trust, np.random.Generator, np.ndarray[Any, Any]], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Trust.from_npz(replace(world[0], **change).to_npz(), features=D, classes=K)
    with pytest.raises(ValueError, match="cannot be read"):
        Trust.from_npz(b"no archive", features=D, classes=K)


def test_scores_of_another_definition_are_refused_and_files_without_a_version_read(
    world: tuple[Trust, np.random.Generator, np.ndarray[Any, Any]],
) -> None:
    trust, _, means = world
    with np.load(io.BytesIO(trust.to_npz())) as file:
        arrays = dict(file)
    assert arrays.pop("version") == 1
    old = Trust.from_npz(_saved(arrays), features=D, classes=K)
    assert old.familiarity(means[0]) == trust.familiarity(means[0])
    with pytest.raises(ValueError, match="scores are of version 2, this release reads version 1"):
        Trust.from_npz(_saved({"version": np.array(2), "other": np.zeros(1)}), features=D, classes=K)
    with pytest.raises(ValueError, match="cannot be read"):
        Trust.from_npz(_saved({**arrays, "version": np.zeros(2)}), features=D, classes=K)


def test_thumbnails_come_with_their_neighbours(
    world: tuple[Trust, np.random.Generator, np.ndarray[Any, Any]],
) -> None:
    trust, _, means = world
    kept = [b"first", b"", b"third", b"4"]
    joined = np.frombuffer(b"".join(kept), np.uint8)
    shown = replace(trust, thumbnails=joined, thumbnail_ends=np.cumsum([len(each) for each in kept]))
    again = Trust.from_npz(shown.to_npz(), features=D, classes=K)
    plain = {near.id: near for near in trust.neighbours(means[0], count=4)}
    for near in again.neighbours(means[0], count=4):
        assert near.thumbnail == kept[list(trust.reference_ids).index(near.id)]
        assert near._replace(thumbnail=None) == plain[near.id]
    with pytest.raises(ValueError, match="thumbnail_ends do not fit"):
        Trust.from_npz(replace(shown, thumbnails=joined[:-1]).to_npz(), features=D, classes=K)


def _saved(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def mapie(data_folder: Path) -> Any:
    """Probabilities by chance, and the sets that MAPIE 1.6 makes of them.

    Of what its APS draws by chance, 1 is drawn: a score is the probability of the likelier labels. Its
    include_last_label is True, the default.
    """
    return json.loads((data_folder / "mapie_sets.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("error_rate", [0.05, 0.1, 0.2])
def test_prediction_sets_are_those_of_mapie(mapie: Any, method: SetMethod, error_rate: float) -> None:
    held_out = np.array(mapie["held_out"], np.float32)
    count, classes = held_out.shape
    trust = Trust.calibrated(
        np.zeros((count, 1), np.float32),
        held_out,
        np.array(mapie["targets"]),
        projection=np.zeros((1, 1), np.float32),
        centres=np.zeros((classes, 1), np.float32),
        kernel=np.zeros((1, classes), np.float32),
        bias=np.zeros(classes, np.float32),
        references=np.zeros((0, 1), np.float32),
        reference_labels=np.zeros(0, np.int64),
        reference_ids=np.zeros(0, "U1"),
    )
    for row, expected in zip(np.array(mapie["new"], np.float32), mapie["sets"][f"{method} {error_rate}"], strict=True):
        assert sorted(trust.prediction_set(row, error_rate, method)) == np.flatnonzero(expected).tolist()


def test_thinning_leaves_each_class_an_equal_share() -> None:
    targets = np.array([0] * 100 + [1] * 10 + [2] * 3)
    kept = targets[thinned(targets, 23, seed=0)]
    assert np.bincount(kept).tolist() == [10, 10, 3]
