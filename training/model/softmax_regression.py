"""Fit a linear layer with softmax to fixed features: a convex problem, solved with L-BFGS.

Features are read in pieces, so they may be larger than memory. It knows nothing of pictures or networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

Features = NDArray[np.float16] | NDArray[np.float32]

_PIECE = 4096
_MOST_ITERATIONS = 200
_TOLERANCE = 1e-5
"""The relative decrease of the loss that is not worth another step: labels hardly change after it."""


@dataclass(frozen=True)
class Linear:
    """A linear layer: logits (N, K) are features (N, D) @ `kernel` (D, K) + `bias` (K,)."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    def log_probabilities(self, features: Features) -> NDArray[np.float32]:
        """Return the logarithms of the probabilities (N, K)."""
        pieces = [
            log_softmax(features[start : start + _PIECE].astype(np.float32) @ self.kernel + self.bias, axis=1)
            for start in range(0, len(features), _PIECE)
        ]
        return np.concatenate(pieces)


def fit_softmax(
    views: Sequence[Features],
    targets: NDArray[np.float32],
    *,
    decay: float,
    weights: NDArray[np.float32] | None = None,
    start: Linear | None = None,
) -> Linear:
    """Return the layer that minimises the mean cross-entropy of `targets` (N, K) plus decay / 2 · the kernel's squares.

    `views` are features (N, D) of the same N pictures, each seen in another way. `weights` (N,) default to 1. `start`
    is a first guess: it makes the fit faster, and changes the result by no more than the solver's tolerance.
    """
    count, classes = targets.shape
    width = views[0].shape[1]
    share = np.full(count, 1.0, np.float32) if weights is None else weights
    share = (share / (count * len(views)))[:, None]

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        layer = _layer(flat, width, classes)
        loss = decay / 2 * float(np.square(layer.kernel, dtype=np.float64).sum())
        kernel, bias = decay * layer.kernel, np.zeros(classes, np.float32)
        for view in views:
            for begin in range(0, count, _PIECE):
                rows = slice(begin, begin + _PIECE)
                features = view[rows].astype(np.float32)
                logs = log_softmax(features @ layer.kernel + layer.bias, axis=1)
                loss -= float((logs * targets[rows] * share[rows]).sum(dtype=np.float64))
                wrong = (np.exp(logs) - targets[rows]) * share[rows]
                kernel += features.T @ wrong
                bias += wrong.sum(axis=0)
        return loss, np.concatenate([kernel.ravel(), bias]).astype(np.float64)

    first = np.zeros(width * classes + classes) if start is None else np.append(start.kernel.ravel(), start.bias)
    options = {"maxiter": _MOST_ITERATIONS, "ftol": _TOLERANCE}
    with threadpool_limits(1):  # more threads wait for each other: the matrices are narrow
        found = minimize(loss_and_gradient, first, jac=True, method="L-BFGS-B", options=options)
    return _layer(found.x, width, classes)


def _layer(flat: NDArray[np.float64], width: int, classes: int) -> Linear:
    values = flat.astype(np.float32)
    return Linear(values[: width * classes].reshape(width, classes), values[width * classes :])
