"""Temperature scaling: divide the logits by one number, fitted on held-out pictures, to match confidence and accuracy.

Guo et al. 2017, arXiv:1706.04599. The network's labels do not change.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image
from app.system.wording import count_of
from training.data.tensors import Tensors
from training.errors import TrainingError

Method = Literal["temperature", "none"]

_LEAST_PICTURES = 50
"""With fewer pictures, one confident mistake would decide."""
_BOUNDS = (0.05, 20.0)
_BATCH = 32
_SURE = 0.95


@dataclass(frozen=True)
class Calibration:
    """The calibration of a model: its answers are the softmax of logits / `temperature`.

    The temperature is 1 if the method is "none". `fitted_on` is a number of pictures; `reason` is shown to people.
    """

    method: Method
    temperature: float
    fitted_on: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        if self.method == "none":
            return f"the probabilities are not calibrated: {self.reason}"
        return f"calibrated: the softmax is that of logits / {self.temperature:.3f}, {self.reason}"


def calibrate(network: Any, validation: Tensors | None, method: Method) -> Calibration:
    """Fit a temperature on the validation pictures and divide the weights of the last layer of `network` by it.

    The temperature stays 1 if the fitted one does not differ significantly from 1.

    `network` is a `keras.Model` and is changed in place. The network is unchanged, and the reason is recorded, if the
    options say so or if it cannot be calibrated.
    """
    if method == "none":
        return _untouched("as asked for")
    if validation is None:
        return _untouched("there are no validation pictures to fit a temperature on; give --validation a share")
    count = len(validation.targets)
    if count < _LEAST_PICTURES:
        return _untouched(
            f"{count_of(count, 'validation picture')}, too few for a temperature, which takes {_LEAST_PICTURES}"
        )
    last = network.layers[-1]
    if type(last).__name__ != "Dense" or getattr(last.activation, "__name__", None) != "softmax":
        return _untouched("the network does not end in a Dense layer with softmax")
    logits = _logits(network, last, validation.images)
    temperature = fit_temperature(logits, validation.targets)
    if not differs_from_one(logits, validation.targets, temperature):
        return Calibration(
            "temperature", 1.0, count, f"as {count:,} validation pictures cannot tell {temperature:.3f} from 1"
        )
    last.set_weights([weights / temperature for weights in last.get_weights()])
    return Calibration("temperature", temperature, count, f"fitted on {count:,} validation pictures")


def fit_temperature(logits: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return the temperature at which softmax(logits / temperature) makes the true labels (N,) most likely.

    `logits` is (N, K). log(temperature) has a standard normal prior, worth less than one picture: it decides only if
    the pictures do not, as when all of them are classified right and the likelihood alone would tend to 0.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if not np.isfinite(logits).all():
        raise TrainingError("The network's outputs are not finite, so it cannot be calibrated. Train it again.")
    below_largest = logits - logits.max(axis=1, keepdims=True)
    below_true = below_largest[np.arange(len(targets)), targets]

    def cost(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        negative_log_likelihood = logsumexp(below_largest * scale, axis=1) - below_true * scale
        return float(negative_log_likelihood.sum() + log_temperature**2 / 2)

    found = minimize_scalar(cost, bounds=np.log(_BOUNDS), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def differs_from_one(logits: NDArray[np.float64], targets: NDArray[np.int64], temperature: float) -> bool:
    """Return whether true labels (N,) are likelier at this temperature than at 1 by more than chance explains.

    A likelihood-ratio test at 5 %.
    """
    from scipy.special import logsumexp
    from scipy.stats import chi2

    rows = np.arange(len(targets))
    plain, scaled = (
        float((scores[rows, targets] - logsumexp(scores, axis=1)).sum()) for scores in (logits, logits / temperature)
    )
    return bool(2 * (scaled - plain) > chi2(1).ppf(_SURE))


def uncalibrated(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return the softmax of the logits themselves, from probabilities (N, K) at that temperature.

    softmax(z) is softmax(z / T) to the power of T, divided by its sum.
    """
    powers = probabilities.astype(np.float64) ** temperature
    restored: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return restored


def recorded_temperature(training: Mapping[str, Any]) -> float:
    """Return the temperature from a manifest's training record; 1 if it has none, as in older bundles."""
    calibration = training.get("calibration")
    return float(calibration["temperature"]) if isinstance(calibration, dict) else 1.0


def _untouched(reason: str) -> Calibration:
    return Calibration("none", 1.0, 0, reason)


def _logits(network: Any, last: Any, images: Image) -> NDArray[np.float64]:
    """Return the logits of images, which cannot be derived from float32 probabilities that are 0 or 1."""
    softmax, last.activation = last.activation, None
    try:
        starts = range(0, len(images), _BATCH)
        batches = [network(images[start : start + _BATCH], training=False) for start in starts]
    finally:
        last.activation = softmax
    return np.concatenate([np.asarray(batch, np.float64) for batch in batches])
