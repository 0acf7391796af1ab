"""Test whether two models differ, by their right answers to the same pictures. It knows nothing of bundles."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.system.wording import count_of

SIGNIFICANT = 0.05
_Z = 1.959964
"""The normal distribution's quantile for 95 %."""


@dataclass(frozen=True)
class Paired:
    """Counts of pictures by whether A and B are right. Only pictures on which one of them is wrong show a
    difference."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> "Paired":
        """Count from each model's right answers (N,), the same pictures in the same order."""
        return cls(
            both=int((right_a & right_b).sum()),
            only_a=int((right_a & ~right_b).sum()),
            only_b=int((~right_a & right_b).sum()),
            neither=int((~right_a & ~right_b).sum()),
        )

    @property
    def pictures(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @cached_property
    def p_value(self) -> float:
        """McNemar's exact test: how often a coin divides those pictures at least as unevenly, in either direction."""
        from scipy.stats import binomtest

        discordant = self.only_a + self.only_b
        return float(binomtest(self.only_b, discordant).pvalue) if discordant else 1.0

    @property
    def is_real(self) -> bool:
        return self.p_value < SIGNIFICANT

    @property
    def difference(self) -> float:
        """B's accuracy - A's."""
        return (self.only_b - self.only_a) / self.pictures

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the difference: Wald's interval after adding one picture to each side.

        Bonett & Price 2012, Journal of Educational and Behavioral Statistics 37.
        """
        count = self.pictures + 2
        share_b, share_a = (self.only_b + 1) / count, (self.only_a + 1) / count
        middle = share_b - share_a
        half = _Z * math.sqrt((share_a + share_b - middle**2) / count)
        return max(-1.0, middle - half), min(1.0, middle + half)

    def verdict(self, a: str, b: str) -> str:
        """Return the test's result in words, with these names of the models."""
        counts = f"{b} is right on {self.only_b:,} that {a} has wrong, {a} on {self.only_a:,} that {b} has wrong"
        pictures = count_of(self.pictures, "picture")
        if not self.is_real:
            return f"{counts}: p = {self.p_value:.2g}; {pictures} cannot tell them apart."
        better = b if self.only_b > self.only_a else a
        return f"{counts}: p = {self.p_value:.2g}; {better} is better, and {pictures} are enough to say so."
