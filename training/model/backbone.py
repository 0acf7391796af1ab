"""Backbones: networks with weights trained on ImageNet, without their heads, and which of their layers are trained.

Each scales its own input, so it takes uint8 pictures.
"""

import sys
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from training.errors import OptionError
from training.model import efficientnet_lite
from training.model.installed_weights import installed_weights, is_as_published
from training.model.layers import Application, Backbone
from training.tensorflow import keras

_PUBLISHED = "https://storage.googleapis.com/tensorflow/keras-applications/"
_DOWNLOADS: dict[Application, tuple[str, str]] = {
    "mobilenet_v3_small": (
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
    ),
    "efficientnet_v2_b0": (
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
    ),
}
"""Keras's file names and digests of ImageNet's weights without the head. Those of other applications are installed."""

NAME = "backbone"
"""The backbone's layer name in its network."""

_NOTHING = "none"
"""`Backbone.fine_tune_from` if all blocks stay as they are."""
_MOMENTUM = 0.9


def find_weights(wanted: Backbone) -> Path | None:
    """Return the file of the weights, downloading it if necessary; None for random weights.

    Raises OptionError if the weights are not available.
    """
    if not wanted.is_taught:
        return None
    if wanted.weights != "imagenet":
        return Path(wanted.weights)
    return _downloaded(wanted.application) if wanted.application in _DOWNLOADS else _installed(wanted.application)


def build_backbone(wanted: Backbone, shape: tuple[int, int, int]) -> keras.Model:
    """Return the network: float or uint8 (N, H, W, 3) of levels 0 to 255 → features (N, h, w, C).

    Raises OptionError if it cannot take these pictures, or its weights cannot be loaded.
    """
    if shape[2] != 3:
        raise OptionError(f"{wanted.application} needs coloured pictures. Give --colour rgb.")
    if min(shape[:2]) < 32:
        raise OptionError(
            f"Pictures of {shape[1]}x{shape[0]} are too small for {wanted.application}; give a --size of 32 or more."
        )
    file = find_weights(wanted)
    backbone = _untrained(wanted.application, shape)
    if file is None:
        _follow_faster(backbone)
    else:
        _load(backbone, wanted.application, file)
        _let_learn(backbone, wanted.fine_tune_from)
    return backbone


def divide(backbone: keras.Model, block: str) -> tuple[keras.Model, keras.Model]:
    """Return the layers before a block, and from it on, as two models of the same layers.

    "none" divides after the last block. Raises OptionError if there is no such block.
    """
    output = _output_before(backbone, block)
    front = keras.Model(backbone.input, output)
    if output is backbone.output:
        image = keras.Input(output.shape[1:])
        return front, keras.Model(image, keras.layers.Identity()(image))
    return front, keras.Model(output, backbone.output)


def _let_learn(backbone: keras.Model, block: str) -> None:
    """Freeze the layers before `block`, and all batch normalisation, which then works as in inference."""
    first = _first_layer(backbone, block)
    for place, layer in enumerate(backbone.layers):
        layer.trainable = place >= first and not isinstance(layer, keras.layers.BatchNormalization)


def _output_before(backbone: keras.Model, block: str) -> keras.KerasTensor:
    """Return the last output before `block` from which all layers after it can be computed."""
    layers = backbone.layers
    if block == _NOTHING:
        return backbone.output
    for end in range(_first_layer(backbone, block), 0, -1):
        later = {id(tensor) for layer in layers[end:] for tensor in _inputs(layer)}
        crossing = [layer.output for layer in layers[:end] if id(layer.output) in later]
        if len(crossing) == 1:
            return crossing[0]
    return backbone.input


def _inputs(layer: keras.Layer) -> Sequence[keras.KerasTensor]:
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _first_layer(backbone: keras.Model, block: str) -> int:
    names = [layer.name for layer in backbone.layers]
    if block == _NOTHING:
        return len(names)
    for place, name in enumerate(names):
        if name == block or name.startswith(f"{block}_"):
            return place
    raise OptionError(f"--fine-tune-from {block}: the backbone has no such block; its last layer is {names[-1]}.")


def _untrained(application: Application, shape: tuple[int, int, int]) -> keras.Model:
    if application == "efficientnet_lite0":
        return efficientnet_lite.efficientnet_lite0(shape, name=NAME)
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


def _load(backbone: keras.Model, application: Application, file: Path) -> None:
    try:
        if application == "efficientnet_lite0" and file.suffix == ".pth":
            efficientnet_lite.load_torch_weights(backbone, file)
        else:
            with warnings.catch_warnings(action="ignore"):  # Keras warns of each layer of a wrong file before it raises
                backbone.load_weights(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as exc:
        where = f"ImageNet's are at {_address(application)}" if application in _DOWNLOADS else "imagenet is installed"
        raise OptionError(
            f"{file} does not hold weights of {application} without its head. {where}; --weights none starts from "
            "random weights."
        ) from exc


def _installed(application: Application) -> Path:
    file = installed_weights()
    if file is None or not is_as_published(file):
        state = "are not installed" if file is None else f"are not what they should be: {file} was changed"
        raise OptionError(
            f"ImageNet's weights of {application} {state}. Run make setup-training, or give --weights FILE."
        )
    return file


def _downloaded(application: Application) -> Path:
    """Return the file of ImageNet's weights in Keras's cache; download it if it is missing."""
    address = _address(application)
    try:
        with redirect_stdout(sys.stderr):  # Keras prints its progress to standard output
            return Path(
                keras.utils.get_file(origin=address, cache_subdir="models", file_hash=_DOWNLOADS[application][1])
            )
    except Exception as exc:
        raise OptionError(
            f"ImageNet's weights of {application} cannot be downloaded here. Download {address} on a machine with "
            "network access, and give the file as --weights FILE; --weights none starts from random weights."
        ) from exc


def _address(application: Application) -> str:
    return _PUBLISHED + _DOWNLOADS[application][0]
