import asyncio
from collections.abc import Sequence

import numpy as np

from app.metrics import FAMILIES, Metrics
from app.serving.predictions import MOST_LABELS, Predictions


def rows(*tops: tuple[int, float], labels: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Rows of which each has one probability at one index."""
    found = np.zeros((len(tops), labels), np.float32)
    for row, (index, probability) in zip(found, tops, strict=True):
        row[index] = probability
    return found


class Noticed(Predictions):
    """Says when it has counted."""

    def __init__(self, metrics: Metrics, model: str, labels: Sequence[str]) -> None:
        super().__init__(metrics, model, labels)
        self.counted = asyncio.Event()

    def flush(self) -> None:
        super().flush()
        self.counted.set()


async def test_pictures_are_counted_by_label_and_probability_a_moment_later() -> None:
    metrics = Metrics()
    predictions = Noticed(metrics, "pets", ["cat", "dog", "bird"])
    predictions.add(rows((0, 0.96), (2, 0.5)))
    predictions.add(rows((0, 1.0)))
    assert metrics.read()["imageclass_predictions"]["pets", "cat"] == [0], "it is there from the start: rates are true"
    await predictions.counted.wait()
    found = metrics.read()
    assert found["imageclass_predictions"] == {("pets", "cat"): [2], ("pets", "dog"): [0], ("pets", "bird"): [1]}
    total, *buckets = found["imageclass_top_probability"]["pets",]
    bounds = FAMILIES["imageclass_top_probability"].bounds
    counts = dict(zip((*bounds, "more"), buckets, strict=True))
    assert (counts[0.5], counts[0.95], counts[0.99], counts[1.0]) == (1, 0, 1, 1)
    assert (sum(buckets), round(total, 5)) == (3, 2.46)


async def test_many_pictures_are_counted_at_once() -> None:
    metrics = Metrics()
    Predictions(metrics, "pets", ["cat", "dog", "bird"]).add(rows(*[(1, 0.75)] * 300))
    assert metrics.read()["imageclass_predictions"]["pets", "dog"] == [300]


async def test_a_model_with_many_labels_is_counted_by_probability_alone() -> None:
    metrics = Metrics()
    labels = [str(index) for index in range(MOST_LABELS + 1)]
    predictions = Predictions(metrics, "many", labels)
    predictions.add(rows((100, 0.75), labels=len(labels)))
    predictions.flush()
    found = metrics.read()
    assert found["imageclass_predictions"] == {}
    assert found["imageclass_top_probability"]["many",][0] == 0.75


async def test_what_is_no_number_is_not_counted() -> None:
    metrics = Metrics()
    predictions = Predictions(metrics, "pets", ["cat", "dog", "bird"])
    predictions.add(rows((0, float("nan")), (1, 0.5)))
    predictions.flush()
    assert metrics.read()["imageclass_top_probability"]["pets",][0] == 0.5
