"""Bin pictures by confidence: each bin's mean confidence, accuracy, and the accuracy of a calibrated model.

Confidence is the largest probability of a picture. Consistency resampling (Bröcker & Smith 2007, Weather and
Forecasting 22) draws whether the answer is right, as if the confidence were the true probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNKS = 8
"""Pieces of a bin within which confidence counts as equal, so that one binomial draw stands for its pictures."""


@dataclass(frozen=True)
class Bins:
    """B bins of pictures; the arrays are (B,).

    `low` and `high` are the smallest and the largest confidence in a bin, `gap_variance` is the variance of
    confidence - right (1 or 0) among its pictures, 0 if there is one.
    """

    pictures: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    gap_variance: Floats
    _chunk_pictures: NDArray[np.int64]
    _chunk_confidence: Floats
    _first_chunk: NDArray[np.int64]

    @classmethod
    def of(cls, rows_of_bins: Sequence[NDArray[np.int64]], confidence: Floats, right: NDArray[np.bool_]) -> "Bins":
        """Make bins: each from the rows of its pictures in the other two arrays. Every bin needs a picture."""
        bins: list[tuple[float, ...]] = []
        chunks: list[tuple[int, float]] = []
        first_chunk: list[int] = []
        for rows in rows_of_bins:
            ordered = rows[np.argsort(confidence[rows], kind="stable")]
            sure, is_right = confidence[ordered], right[ordered]
            variance = float(np.var(sure - is_right, ddof=1)) if len(rows) > 1 else 0.0
            bins.append((len(rows), float(sure.mean()), float(is_right.mean()), sure[0], sure[-1], variance))
            first_chunk.append(len(chunks))
            chunks += [(len(chunk), chunk.mean()) for chunk in np.array_split(sure, min(_CHUNKS, len(sure)))]
        pictures, sure_of_bin, accuracy, low, high, variance_of_bin = np.array(bins, np.float64).T
        chunk_pictures, chunk_confidence = np.array(chunks, np.float64).T
        return cls(
            pictures=pictures.astype(np.int64),
            confidence=sure_of_bin,
            accuracy=accuracy,
            low=low,
            high=high,
            gap_variance=variance_of_bin,
            _chunk_pictures=chunk_pictures.astype(np.int64),
            _chunk_confidence=chunk_confidence,
            _first_chunk=np.array(first_chunk),
        )

    @classmethod
    def of_equal_mass(cls, confidence: Floats, right: NDArray[np.bool_], *, count: int) -> "Bins":
        """Return bins of equally many pictures, by rising confidence."""
        order = np.argsort(confidence, kind="stable")
        return cls.of(np.array_split(order, min(count, len(order))), confidence, right)

    @classmethod
    def of_equal_width(cls, confidence: Floats, right: NDArray[np.bool_], *, count: int) -> "Bins":
        """Return the bins of `count` equal parts of [0, 1] that hold a picture; the lower edge is outside."""
        places = np.clip(np.ceil(confidence * count) - 1, 0, count - 1).astype(np.int64)
        return cls.of([np.flatnonzero(places == place) for place in np.unique(places)], confidence, right)

    @property
    def gaps(self) -> Floats:
        """Return confidence - accuracy (B,): above 0 if the model is overconfident."""
        return self.confidence - self.accuracy

    @property
    def likely_accuracy(self) -> Floats:
        """Return accuracies (B,) with half a right and half a wrong picture added to each bin (Jeffreys' prior).

        A model that makes mistakes may have a bin without one.
        """
        likely: Floats = (self.accuracy * self.pictures + 0.5) / (self.pictures + 1)
        return likely

    def mean_of(self, figures: Floats) -> Floats:
        """Return the mean over all pictures of figures (…, B), which each picture takes from its bin."""
        mean: Floats = figures @ self.pictures / self.pictures.sum()
        return mean

    def mean_gap(self, accuracy: Floats) -> Floats:
        """Return the mean over pictures of |confidence - accuracy|, from accuracies (…, B)."""
        return self.mean_of(np.abs(self.confidence - accuracy))

    def draw(self, random: np.random.Generator, draws: int, gaps: Floats | float = 0.0) -> tuple[Floats, Floats]:
        """Return accuracies (`draws`, B) of a model with these true gaps (B,), and its true accuracies (B,).

        With no gaps it is calibrated. Accuracies are clipped to [0, 1].
        """
        per_bin = np.diff(np.append(self._first_chunk, len(self._chunk_pictures)))
        shift = np.repeat(np.broadcast_to(gaps, self.confidence.shape), per_bin)
        accuracy = np.clip(self._chunk_confidence - shift, 0.0, 1.0)
        # All draws of a chunk one after another: NumPy prepares a distribution only if it is another than the last.
        right = random.binomial(self._chunk_pictures[:, None], accuracy[:, None], size=(len(accuracy), draws))
        drawn = np.add.reduceat(right, self._first_chunk, axis=0).T / self.pictures
        true = np.add.reduceat(self._chunk_pictures * accuracy, self._first_chunk) / self.pictures
        return drawn, true
