"""Measure how the accuracy holds when pictures are shifted, turned, noisy, blurred, recompressed or inverted.

The changes are made to pictures in contract form, and the results are preprocessed again, as a client's pictures would
be. So an inversion is undone if the model's preprocessing normalises polarity.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image, PreprocessingSpec, decode, prepare
from app.engines.engine import Engine
from training.evaluation.score import predict_all
from training.progress import Reporter

_MOST_PICTURES, _FEWEST_PICTURES = 500, 40
_MOST_VALUES = 4_000_000
"""The limit on values of all pictures together: some seconds, even for a slow network."""
_SEED = 0

_Change = Callable[[Image, float, np.random.Generator], Image]


@dataclass(frozen=True)
class Trial:
    """One kind of change to a picture (H, W, C), with its strengths, the mildest first."""

    name: str
    unit: str
    strengths: tuple[float, ...]
    change: _Change


def _shift(image: Image, share: float, random: np.random.Generator) -> Image:
    angle = random.uniform(0, 2 * math.pi)
    height, width = image.shape[:2]
    return _warp(image, np.array([[1, 0, share * width * math.cos(angle)], [0, 1, share * height * math.sin(angle)]]))


def _turn(image: Image, degrees: float, random: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    return _warp(image, np.asarray(cv2.getRotationMatrix2D(centre, degrees * random.choice([-1, 1]), 1.0)))


def _noise(image: Image, levels: float, random: np.random.Generator) -> Image:
    return np.clip(np.rint(image + random.normal(0, levels, image.shape)), 0, 255).astype(np.uint8)


def _blur(image: Image, share: float, _random: np.random.Generator) -> Image:
    sigma = share * min(image.shape[:2])
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.uint8)


def _recompress(image: Image, quality: float, _random: np.random.Generator) -> Image:
    colour: Literal["grey", "rgb"] = "grey" if image.shape[2] == 1 else "rgb"
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return decode(encoded.tobytes(), PreprocessingSpec(height=1, width=1, colour=colour))


def _invert(image: Image, _strength: float, _random: np.random.Generator) -> Image:
    return 255 - image


TRIALS: tuple[Trial, ...] = (
    Trial("shift", "of the side", (0.05, 0.1, 0.2), _shift),
    Trial("turn", "degrees", (5, 15, 30), _turn),
    Trial("noise", "grey levels", (10, 30, 60), _noise),
    Trial("blur", "of the side", (0.02, 0.04, 0.08), _blur),
    Trial("recompression", "JPEG quality", (50, 20, 5), _recompress),
    Trial("inversion", "", (1,), _invert),
)


def robustness(
    engine: Engine, images: Image, targets: NDArray[np.int64], spec: PreprocessingSpec, reporter: Reporter
) -> dict[str, Any]:
    """Return the accuracy on a sample of pictures (N, H, W, C), unchanged and changed, in JSON's types.

    The sample is spread evenly over them, and is the same in every run.
    """
    rows = _sample(len(images), spec)
    images, targets = images[rows], targets[rows]

    def accuracy(changed: Image) -> float:
        return float((predict_all(engine.predict, changed).argmax(axis=1) == targets).mean())

    found: dict[str, Any] = {"pictures": len(rows), "unchanged": accuracy(images), "changed": {}}
    with reporter.task("trying changed pictures", sum(len(trial.strengths) for trial in TRIALS)) as advance:
        for trial in TRIALS:
            steps = []
            for strength in trial.strengths:
                steps.append({"strength": strength, "accuracy": accuracy(_changed(images, trial, strength, spec))})
                advance(1, trial.name)
            found["changed"][trial.name] = {"unit": trial.unit, "steps": steps}
    return found


def answers_needed(count: int, spec: PreprocessingSpec) -> int:
    """Return how many answers `robustness` needs from the model, for `count` pictures."""
    return len(_sample(count, spec)) * (1 + sum(len(trial.strengths) for trial in TRIALS))


def changed_examples(image: Image, spec: PreprocessingSpec) -> Mapping[str, Sequence[Image]]:
    """Return one picture (H, W, C) changed by each trial at each strength."""
    return {
        trial.name: [_changed(image[np.newaxis], trial, strength, spec)[0] for strength in trial.strengths]
        for trial in TRIALS
    }


def _changed(images: Image, trial: Trial, strength: float, spec: PreprocessingSpec) -> Image:
    random = np.random.default_rng(_SEED)
    return np.stack([prepare(_as_decoded(trial.change(image, strength, random)), spec) for image in images])


def _as_decoded(image: Image) -> Image:
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _warp(image: Image, matrix: NDArray[np.float64]) -> Image:
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _sample(count: int, spec: PreprocessingSpec) -> NDArray[np.intp]:
    fitting = _MOST_VALUES // math.prod(spec.shape)
    wanted = min(count, _MOST_PICTURES, max(_FEWEST_PICTURES, fitting))
    return np.linspace(0, count - 1, wanted).round().astype(np.intp)
