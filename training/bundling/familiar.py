"""Compute statistics of familiar pictures from a network's features, for trust.npz."""

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import FEATURES, Signature
from app.contract.preprocessing import PreprocessingSpec, prepare
from app.contract.trust import MAX_TRUST_BYTES, Trust, directions, normalised
from app.engines.engine import Engine, GivesOutputs
from training.data.tensors import Tensors
from training.errors import OptionError
from training.evaluation.score import predict_all
from training.progress import Reporter

if TYPE_CHECKING:
    from training.tensorflow import keras

_DIMENSIONS = 64
"""Dimensions of the projection.

With 1,280 features of photos of clothes, 64 tell photos of hands from these with an AUROC of 0.994, 128 with 0.986.
"""
_SHRINKAGE = 0.01
_MOST_LEARNED = 20_000
"""Training pictures that the projection is computed from."""
_UNKNOWN = "the model cannot recognise unfamiliar pictures: "
_MOST_REFERENCES = 5_000
"""Training pictures that may be neighbours."""
_THUMBNAIL_SIDE = 64


def learn_trust(
    network: "keras.Model",
    engine: Engine,
    signature: Signature,
    train: Tensors,
    validation: Tensors | None,
    *,
    known: NDArray[np.float16] | None,
    keep_thumbnails: bool,
    seed: int,
    reporter: Reporter,
) -> Trust | None:
    """Return statistics of familiar pictures, from the features of `network` as `engine` runs it.

    None if it has no such features; the reason is reported. `known` are the features of the training pictures, if they
    have been computed already. With `keep_thumbnails`, small copies of the pictures that may be neighbours are kept,
    too.
    """
    if all(tensor.name != FEATURES for tensor in signature.other_outputs) or not isinstance(engine, GivesOutputs):
        reporter.say(_UNKNOWN + "the network does not end in a dense layer")
        return None
    if validation is None:
        reporter.say(_UNKNOWN + "there are no validation pictures to compare with; give --validation a share")
        return None
    kernel, bias = (np.asarray(weights, np.float32) for weights in network.layers[-1].get_weights())
    if _least_bytes(kernel) > MAX_TRUST_BYTES:  # before work that grows with the square of the features
        most = f"{MAX_TRUST_BYTES:,} bytes"
        reporter.say(_UNKNOWN + f"the statistics of its {len(kernel):,} features take more than {most}")
        return None
    rows = thinned(train.targets, _MOST_LEARNED, seed)
    learned = known[rows].astype(np.float32) if known is not None else _features(engine, train.images[rows], reporter)
    targets = train.targets[rows]
    projection, centres = project(learned, targets, classes=len(bias))
    if max(np.abs(projection).max(), np.abs(kernel).max()) > np.finfo(np.float16).max:
        reporter.say(_UNKNOWN + "the network's weights are too large")
        return None
    projection, kernel = _as_kept(projection), _as_kept(kernel)
    near = thinned(targets, _MOST_REFERENCES, seed)
    held_out = _outputs(engine, validation.images, reporter)
    while True:
        trust = Trust.calibrated(
            held_out[FEATURES],
            held_out[signature.output.name],
            validation.targets,
            projection=projection,
            centres=centres,
            kernel=kernel,
            bias=bias,
            references=_as_kept(directions(learned[near], projection, centres)),
            reference_labels=targets[near],
            reference_ids=np.array([within_data(train.pictures[rows[row]].id) for row in near], np.str_),
        )
        if len(trust.to_npz()) <= MAX_TRUST_BYTES:
            return _with_thumbnails(trust, train.images, rows[near]) if keep_thumbnails else trust
        if not len(near):
            reporter.say(_UNKNOWN + f"the last layer alone takes more than {MAX_TRUST_BYTES:,} bytes")
            return None
        near = near[: len(near) // 2] if len(near) > 1 else near[:0]


def _least_bytes(kernel: NDArray[np.float32]) -> int:
    """Return the bytes of the projection and of the last layer's kernel (D, K) as they are kept."""
    features, classes = kernel.shape
    return int(features * (min(_DIMENSIONS, features) + classes) * np.dtype(np.float16).itemsize)


def _with_thumbnails(trust: Trust, images: NDArray[Any], rows: NDArray[np.intp]) -> Trust:
    encoded = [_thumbnail(images[row]) for row in rows]
    joined = np.frombuffer(b"".join(encoded), np.uint8)
    return replace(trust, thumbnails=joined, thumbnail_ends=np.cumsum([len(each) for each in encoded], dtype=np.int64))


def _thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Return a tensor (H, W, C), as the network sees it, as a small JPEG."""
    height, width = image.shape[:2]
    scale = min(1.0, _THUMBNAIL_SIDE / max(height, width))
    spec = PreprocessingSpec(height=max(1, round(height * scale)), width=max(1, round(width * scale)), colour="rgb")
    shown = prepare(image[..., 0] if image.shape[2] == 1 else image, spec)
    return cv2.imencode(".jpg", shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def project(
    features: NDArray[np.float32], targets: NDArray[np.int64], *, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the `projection` and `centres` of `Trust`, by features (N, D) and the indices (N,) of their labels.

    The directions in which all pictures differ most are kept; in them, distances are made equal by the covariance
    within classes. A class without pictures has the centre of all.
    """
    unit = normalised(features).astype(np.float64)
    middle = unit.mean(axis=0)
    # Not from `unit - middle`, which would be a second array of 200 MB for 20,000 photos.
    _, axes = np.linalg.eigh(unit.T @ unit - len(unit) * np.outer(middle, middle))
    kept = axes[:, ::-1][:, :_DIMENSIONS]
    places = unit @ kept
    means = np.stack(
        [
            places[targets == label].mean(axis=0) if (targets == label).any() else middle @ kept
            for label in range(classes)
        ]
    )
    within = places - means[targets]
    covariance = within.T @ within / len(within)
    covariance += (_SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-9) * np.eye(len(covariance))
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return (kept @ whitening).astype(np.float32), (means @ whitening).astype(np.float32)


def thinned(targets: NDArray[np.int64], most: int, seed: int) -> NDArray[np.intp]:
    """Return at most this many rows in random order, of each class as many as possible up to an equal share."""
    order = np.random.default_rng(seed).permutation(len(targets))
    turn = np.zeros(len(targets), np.int64)
    for label in np.unique(targets):
        of_label = order[targets[order] == label]
        turn[of_label] = np.arange(len(of_label))
    return order[np.argsort(turn[order], kind="stable")][:most]


def check_rate(false_alarms: float | None, held_out: int) -> None:
    """Raise OptionError if this many validation pictures cannot support this rate of false alarms."""
    if false_alarms is not None and false_alarms < 1 / (held_out + 1):
        raise OptionError(
            f"--false-alarms {false_alarms:g} takes {ceil(1 / false_alarms - 1e-9) - 1:,} validation pictures; "
            f"there are {held_out:,}. Ask for a higher rate, or raise --validation."
        )


def within_data(picture_id: str) -> str:
    """Return an id without the folders of this machine: absolute paths would be visible to every client."""
    return Path(picture_id).name if Path(picture_id).is_absolute() else picture_id


def _as_kept(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an array as it will be read from the file, so that the calibration is for the served values."""
    return array.astype(np.float16).astype(np.float32)


def _features(engine: GivesOutputs, images: NDArray[Any], reporter: Reporter) -> NDArray[np.float32]:
    return _outputs(engine, images, reporter)[FEATURES]


def _outputs(engine: GivesOutputs, images: NDArray[Any], reporter: Reporter) -> dict[str, NDArray[np.float32]]:
    batches: list[dict[str, NDArray[np.float32]]] = []

    def take(batch: NDArray[Any]) -> NDArray[np.float32]:
        batches.append(engine.outputs(batch))
        return np.empty((len(batch), 0), np.float32)

    with reporter.task("computing statistics of familiar pictures", len(images)) as advance:
        predict_all(take, images, lambda count: advance(count, ""))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
