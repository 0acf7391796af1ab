"""Count what a model predicts: its labels, and how probable they were.

A request adds its rows to a list; they are counted together later. One by one, NumPy's calls would take a microsecond a
picture.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.metrics import FAMILIES, Metrics

MOST_LABELS = 100
"""Models with more labels are not counted by label: each label is a series of every replica, and a line of every
scrape."""

_MOST_ROWS = 256
_LONGEST_S = 0.5
_BOUNDS = FAMILIES["imageclass_top_probability"].bounds


class Predictions:
    """Counts the predictions of one model, on the event loop, at most half a second late."""

    def __init__(self, metrics: Metrics, model: str, labels: Sequence[str]) -> None:
        few = labels if len(labels) <= MOST_LABELS else ()
        self._of_label = [metrics.predictions(model, label) for label in few]
        self._top_probability = metrics.top_probability(model)
        self._batches: list[NDArray[np.float32]] = []
        self._rows = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, probabilities: NDArray[np.float32]) -> None:
        """Count the pictures of a batch (N, K), soon."""
        self._batches.append(probabilities)
        self._rows += len(probabilities)
        if self._rows >= _MOST_ROWS:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LONGEST_S, self.flush)

    def flush(self) -> None:
        """Count the added pictures now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._batches:
            return
        rows = np.concatenate(self._batches)
        self._batches.clear()
        self._rows = 0
        best = rows.argmax(axis=1)
        top = rows.max(axis=1)
        sound = np.isfinite(top)  # one that is not would spoil the sum for good
        best, top = best[sound], top[sound]
        buckets = np.bincount(np.searchsorted(_BOUNDS, top), minlength=len(_BOUNDS) + 1)
        self._top_probability.observe_many(buckets.tolist(), float(top.sum()))
        if self._of_label:
            for index, count in enumerate(np.bincount(best).tolist()):
                if count:
                    self._of_label[index].add(count)
