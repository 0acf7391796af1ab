"""Describe photos by the features of a network that was trained on ImageNet.

Its networks are those of the preset `photos`, so training and audit share the cached maps and features. It knows
nothing of labels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Picture
from training.data.tensor_cache import TensorCache
from training.data.tensors import load_tensors
from training.model.activations import open_activations
from training.model.network import build_network, divide_network
from training.model.presets.photos import PHOTOS
from training.progress import Reporter
from training.tensorflow import keras

_AT_ONCE = 2_048


def photo_features(pictures: Sequence[Picture], cache: TensorCache, reporter: Reporter) -> NDArray[np.float16]:
    """Return the features (N, D) of usable pictures. Raises OptionError if the weights cannot be loaded, DataError if
    a picture cannot be read any more."""
    spec, backbone = PHOTOS.preprocessing, PHOTOS.backbone
    network = build_network(PHOTOS.layers, shape=spec.shape, classes=2, backbone=backbone)
    front, rest = divide_network(network, "none" if backbone is None else backbone.fine_tune_from)
    labels = sorted({picture.label for picture in pictures})
    features = np.empty((len(pictures), rest.layers[-1].input.shape[-1]), np.float16)
    with (
        open_activations(front, cache) as first_layers,
        open_activations(keras.Sequential(rest.layers[:-1]), cache) as last_layers,
        reporter.task("computing features", len(pictures)) as advance,
    ):
        for begin in range(0, len(pictures), _AT_ONCE):
            part = pictures[begin : begin + _AT_ONCE]
            images = load_tensors(part, spec, labels, on_bad_image="fail", cache=cache).images
            maps = first_layers.of(images, advance=lambda count: advance(count, ""))
            features[begin : begin + len(part)] = last_layers.of(maps)
    return features
