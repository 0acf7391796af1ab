"""What a network makes of pictures is kept while it is worked out, and not only at the end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.tensor_cache import TensorCache
from training.model import activations
from training.model.activations import Activations, open_activations
from training.tensorflow import keras


class Counting:
    """An engine that means to answer as many pictures as it is told, and then is killed."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.answered = 0

    def predict(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.left < len(batch):
            raise KeyboardInterrupt
        self.left -= len(batch)
        self.answered += len(batch)
        answers: np.ndarray[Any, Any] = batch.mean(axis=(1, 2)).astype(np.float32)
        return answers


@pytest.fixture
def images() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (100, 4, 4, 3), np.uint8)


def test_a_run_that_is_killed_leaves_what_it_has_worked_out(
    tmp_path: Path, images: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "_KEPT_TOGETHER", 32)
    network = keras.Sequential([keras.Input((4, 4, 3), dtype="uint8"), keras.layers.GlobalAveragePooling2D()])

    def work_out(engine: Counting) -> np.ndarray[Any, Any]:
        return Activations(network, lambda: engine, TensorCache(tmp_path)).of(images)  # type: ignore[arg-type, return-value]

    with pytest.raises(KeyboardInterrupt):
        work_out(Counting(80))
    assert not list(tmp_path.rglob(".*.rows"))
    second = Counting(100)
    np.testing.assert_array_equal(work_out(second), images.mean(axis=(1, 2)).astype(np.float16))
    assert second.answered == 100 - 64
    third = Counting(0)
    np.testing.assert_array_equal(work_out(third), images.mean(axis=(1, 2)).astype(np.float16))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.rows")) == 100 * (3 * 2 + 16 + 4), "each row once"


def test_no_engine_is_opened_for_what_is_kept_already(tmp_path: Path, images: np.ndarray[Any, Any]) -> None:
    network = keras.Sequential([keras.Input((4, 4, 3), dtype="uint8"), keras.layers.GlobalAveragePooling2D()])
    cache = TensorCache(tmp_path)
    with open_activations(network, cache) as first:
        answers = first.of(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "save", None)
        with open_activations(network, cache) as again:
            np.testing.assert_array_equal(again.of(images), answers)
