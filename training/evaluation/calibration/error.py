"""Estimate the calibration error without the bias of a finite test set, with an interval.

The plain expected calibration error cannot be 0: by chance alone, every bin's accuracy differs from its confidence, and
that is counted as error. `debiased_error` estimates instead which true errors make the observed one likely.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.calibration.bins import Bins, Floats

BINS = 15
LEVEL = 0.95

_DRAWS = 1000
_STEPS = 25
_SMALLEST = 1e-12


@dataclass(frozen=True)
class DebiasedError:
    """`error` is the mean gap between confidence and accuracy over bins of equal mass, without bias.

    [`low`, `high`] is its interval at `level`, which covers 0 exactly if `low` is 0.

    `l2_squared` is the mean squared gap by the debiased estimator of Kumar, Liang & Ma 2019 (arXiv:1909.10155); it may
    be below 0.
    """

    error: float
    low: float
    high: float
    level: float
    bins: int
    l2_squared: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class PlainError:
    """The usual expected calibration error, over bins of equal width (Naeini et al. 2015), beside the mean and the 95th
    percentile that a perfectly calibrated model with the same confidences would show."""

    value: float
    bins: int
    calibrated_mean: float
    calibrated_p95: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def debiased_error(
    confidence: Floats, right: NDArray[np.bool_], *, seed: int = 0, draws: int = _DRAWS
) -> DebiasedError:
    """Estimate the calibration error from confidences (N,) and whether the answers were right (N,).

    Bins of equal mass (Nguyen & O'Connor 2015, arXiv:1508.05154). Models are drawn whose gaps are the observed ones
    times a factor from 0 upwards. The estimate is the true error of the model whose median is the observed error
    (median-unbiased, Andrews 1993, Econometrica 61); the ends of the interval are those of the models in whose tails it
    is (the grid bootstrap, Hansen 1999, Review of Economics and Statistics 81). Unlike the usual bootstrap this is
    valid at 0, too. Two rules keep luck from narrowing the interval. Models are also drawn with the gaps from
    `Bins.likely_accuracy`, and the wider interval counts. The upper end is at least the one for an observed error that
    is the median of a calibrated model's.
    """
    bins = Bins.of_equal_mass(confidence, right, count=BINS)
    random = np.random.default_rng(seed)
    error, low, high = _invert(bins, bins.gaps, random, draws)
    _, low_too, high_too = _invert(bins, bins.confidence - bins.likely_accuracy, random, draws)
    return DebiasedError(
        error=error,
        low=min(low, low_too),
        high=max(high, high_too),
        level=LEVEL,
        bins=len(bins.pictures),
        l2_squared=float(bins.mean_of(bins.gaps**2 - bins.gap_variance / bins.pictures)),
    )


def plain_error(confidence: Floats, right: NDArray[np.bool_], *, seed: int = 0) -> PlainError:
    """Return the plain error from confidences (N,) and whether the answers were right (N,)."""
    bins = Bins.of_equal_width(confidence, right, count=BINS)
    drawn, _ = bins.draw(np.random.default_rng(seed), _DRAWS)
    calibrated = bins.mean_gap(drawn)
    return PlainError(
        value=float(bins.mean_gap(bins.accuracy)),
        bins=BINS,
        calibrated_mean=float(calibrated.mean()),
        calibrated_p95=float(np.quantile(calibrated, 0.95)),
    )


def _invert(bins: Bins, gaps: Floats, random: np.random.Generator, draws: int) -> tuple[float, float, float]:
    """Return the true errors of three models, with multiples of `gaps` as their gaps.

    For the first, the observed error is the median of the errors that it shows; for the second, the upper end of them;
    for the third, the lower end.
    """
    found = float(bins.mean_gap(bins.accuracy))
    likely = bins.likely_accuracy
    spread = float(bins.mean_of(np.sqrt(likely * (1 - likely) / bins.pictures)))
    largest = (found + 3 * spread) / max(float(bins.mean_of(np.abs(gaps))), _SMALLEST)
    grid = []
    for factor in np.linspace(0.0, largest, _STEPS):
        drawn, true = bins.draw(random, draws, factor * gaps)
        tails = np.quantile(bins.mean_gap(drawn), ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))
        grid.append((float(bins.mean_gap(true)) if factor else 0.0, *tails))
    true, lower, median, upper = np.maximum.accumulate(np.array(grid)).T
    return (
        float(np.interp(found, median, true)),
        float(np.interp(found, upper, true)),
        float(np.interp(max(found, median[0]), lower, true)),
    )
