"""Backbones of `keras.applications` with weights trained on ImageNet, without their heads.

Each scales its own input, so it takes uint8 pictures.
"""

import sys
import warnings
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

from training.errors import OptionError
from training.model.layers import Application, Backbone
from training.tensorflow import keras

_PUBLISHED = "https://storage.googleapis.com/tensorflow/keras-applications/"
_WEIGHTS: dict[Application, tuple[str, str]] = {
    "mobilenet_v3_small": (
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
    ),
    "efficientnet_v2_b0": (
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
}
"""Keras's file names and digests of ImageNet's weights without the head."""

NAME = "backbone"
"""The backbone's layer name in its network."""

_MOMENTUM = 0.9


def build_backbone(wanted: Backbone, shape: tuple[int, int, int]) -> keras.Model:
    """Return the network: float or uint8 (N, H, W, 3) of levels 0 to 255 → features (N, h, w, C).

    Raises OptionError if it cannot take these pictures, or its weights cannot be loaded.
    """
    if shape[2] != 3:
        raise OptionError(f"{wanted.application} takes coloured pictures. Give --colour rgb.")
    if min(shape[:2]) < 32:
        raise OptionError(
            f"Pictures of {shape[1]}x{shape[0]} are too small for {wanted.application}; give a --size of 32 or more."
        )
    backbone = _untrained(wanted.application, shape)
    if wanted.weights == "none":
        _follow_faster(backbone)
    else:
        _load(backbone, wanted)
    return backbone


def let_learn(backbone: keras.Model, learns: bool) -> None:
    """Freeze a backbone that has weights, or let it learn, but never its batch normalisation: the statistics of a few
    pictures would spoil those of millions (it then works as in inference)."""
    backbone.trainable = learns
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _untrained(application: Application, shape: tuple[int, int, int]) -> keras.Model:
    options = {"include_top": False, "weights": None}
    image = keras.Input(shape)
    match application:
        case "mobilenet_v3_small":
            network = keras.applications.MobileNetV3Small(input_tensor=image, **options)
        case "efficientnet_v2_b0":
            network = keras.applications.EfficientNetV2B0(input_tensor=image, **options)
    return keras.Model(image, network.output, name=NAME)


def _follow_faster(backbone: keras.Model) -> None:
    """Lower the momenta of moving statistics to tens of steps: published ones of up to 0.999 are for millions."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, _MOMENTUM)


def _load(backbone: keras.Model, wanted: Backbone) -> None:
    file = _downloaded(wanted.application) if wanted.weights == "imagenet" else Path(wanted.weights)
    try:
        with warnings.catch_warnings(action="ignore"):  # one for each layer of a wrong file, before the error
            backbone.load_weights(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as exc:
        raise OptionError(
            f"{file} does not hold weights of {wanted.application} without its head. ImageNet's are at "
            f"{_address(wanted.application)}; --weights none goes without any."
        ) from exc


def _downloaded(application: Application) -> Path:
    """Return the file of ImageNet's weights in Keras's cache; download it if it is missing."""
    address = _address(application)
    try:
        with redirect_stdout(sys.stderr):  # Keras prints its progress to standard output
            return Path(keras.utils.get_file(origin=address, cache_subdir="models", file_hash=_WEIGHTS[application][1]))
    except Exception as exc:
        raise OptionError(
            f"ImageNet's weights of {application} cannot be downloaded here. Get {address} where there is a network, "
            "and give the file as --weights FILE; --weights none goes without any."
        ) from exc


def _address(application: Application) -> str:
    return _PUBLISHED + _WEIGHTS[application][0]
