"""Scoring a bundle: one path for evaluate, compare and the baseline."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.contract.bundle import Bundle, open_bundle
from app.engines.loading import LoadedModel, load_model
from training.data.dataset import Picture
from training.data.sources import open_data
from training.data.tensors import load_tensors
from training.errors import DataError
from training.evaluation import bundle_score
from training.evaluation.baseline import score_baseline
from training.evaluation.bundle_score import score_bundle
from training.progress import Reporter


@pytest.fixture
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


@pytest.fixture
def pictures() -> Sequence[Picture]:
    return open_data("digits").pictures[:40]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the engines that were closed."""
    names: list[str] = []

    class Closing:
        def __init__(self, engine: Any) -> None:
            self.name, self.predict, self.prepare = engine.name, engine.predict, engine.prepare

        def close(self) -> None:
            names.append(self.name)

    def load(path: Path, **options: Any) -> LoadedModel:
        loaded = load_model(path, **options)
        return replace(loaded, engine=Closing(loaded.engine))

    monkeypatch.setattr(bundle_score, "load_model", load)
    return names


def test_a_bundle_answers_every_picture_and_its_engine_is_closed(
    bundle: Bundle, pictures: Sequence[Picture], closed: list[str]
) -> None:
    scored = score_bundle(bundle, pictures, engine="openvino", cache=False, reporter=Reporter())
    assert scored.probabilities.shape == (40, 10)
    assert scored.scores.accuracy == scored.right.mean()
    assert scored.tensors.pictures == tuple(pictures)
    assert scored.ms_alone is None
    assert closed == ["openvino"]


def test_the_engine_is_closed_if_the_pictures_cannot_be_used(bundle: Bundle, closed: list[str]) -> None:
    strange = [Picture("0.png", "a letter", None, Path("never-read.png"))]
    with pytest.raises(DataError, match="a letter"):
        score_bundle(bundle, strange, engine="openvino", cache=False, reporter=Reporter())
    assert closed == ["openvino"]


def test_one_picture_by_itself_is_timed_on_request(bundle: Bundle, pictures: Sequence[Picture]) -> None:
    scored = score_bundle(bundle, pictures, engine="openvino", cache=False, timed=True, reporter=Reporter())
    assert scored.ms_alone is not None
    assert min(scored.ms_alone, scored.seconds) > 0


@pytest.mark.parametrize("cache", [True, False])
def test_a_baseline_takes_its_pictures_from_the_cache_if_it_may(
    bundle: Bundle, pictures: Sequence[Picture], cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps: list[bool] = []

    def load(*arguments: Any, **options: Any) -> Any:
        keeps.append(options["cache"].keeps)
        return load_tensors(*arguments, **options)

    monkeypatch.setattr(bundle_score, "load_tensors", load)
    unknown = Picture("unknown.png", "a letter", None, Path("never-read.png"))
    scores = score_baseline(bundle, [*pictures, unknown], engine="openvino", cache=cache, reporter=Reporter())
    assert scores["pictures"] == 40
    assert keeps == [cache]
