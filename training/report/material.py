"""The data of a report. This module draws nothing and measures nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec
from training.audit.findings import Finding
from training.data.dataset import Dataset, Split
from training.data.tensors import Tensors

Content = dict[str, Any]
"""A section's values, by the names in its template."""


@dataclass(frozen=True)
class HeldOut:
    """The pictures whose answers are shown; `probabilities` (N, K) are the answers to `tensors`, row by row."""

    split: Split
    tensors: Tensors
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """A finished run, as its report shows it. A split without pictures is None in `splits`, and missing in
    `probabilities`."""

    name: str
    version: int
    dataset: Dataset
    counts: Mapping[Split, Mapping[str, int]]
    preprocessing: PreprocessingSpec
    training: Mapping[str, Any]
    """The manifest's record of the run."""
    splits: Mapping[Split, Tensors | None]
    probabilities: Mapping[Split, NDArray[np.float32]]
    metrics: Mapping[str, Any]
    """metrics.json."""
    audit: Sequence[Finding]
    """The audit's findings before the training."""
    class_maps: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    """The class maps (h, w, K) of the worst mistakes, by their row in `shown`; empty if the network has none."""

    def held_out(self) -> list[HeldOut]:
        """Return the held-out pictures, those of the test first."""
        return self._answered("test", "validation")

    @property
    def shown(self) -> HeldOut:
        """The answers of the test split; without one, of validation; without both, of training."""
        return self._answered("test", "validation", "train")[0]

    def _answered(self, *splits: Split) -> list[HeldOut]:
        found = ((split, self.splits[split]) for split in splits)
        return [HeldOut(split, tensors, self.probabilities[split]) for split, tensors in found if tensors is not None]
