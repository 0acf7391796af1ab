"""EfficientNet-Lite0 in Keras, with the weights that Google trained on ImageNet.

The network is EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6, and with a
stem and a head of fixed width: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. It
scales pictures to (x − 127) / 128 and pads as TensorFlow's "same" does. With other scaling or padding the weights still
load, but 4 to 10 more pictures in a hundred are classified wrong.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.model.torch_weights import Arrays, read_torch_weights
from training.tensorflow import keras

# Repeats, kernel, stride, expansion, filters. The first stage has no expansion.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


def efficientnet_lite0(shape: tuple[int, int, int], *, name: str) -> keras.Model:
    """Return the untrained network without its classifier: levels 0 to 255 (N, H, W, 3) → features (N, h, w, 1280).

    The outputs of its 16 blocks are those of the layers "block0" to "block15"; "stem" and "head" are around them.
    """
    image = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scaling")(image)
    x = _ends(x, keras.layers.Conv2D(_STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv"), "stem")
    block = 0
    for repeats, kernel, stride, expansion, filters in _STAGES:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            x = _block(x, f"block{block}", kernel=kernel, stride=step, expansion=expansion, filters=filters)
            block += 1
    x = _ends(x, keras.layers.Conv2D(_HEAD, 1, use_bias=False, name="head_conv"), "head")
    return keras.Model(image, x, name=name)


def _block(
    x: keras.KerasTensor, name: str, *, kernel: int, stride: int, expansion: int, filters: int
) -> keras.KerasTensor:
    start = x
    if expansion > 1:
        wide = keras.layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False, name=f"{name}_expand_conv")
        x = _ends(x, wide, f"{name}_expand")
    depthwise = keras.layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    x = _ends(x, depthwise, f"{name}_depthwise")
    is_residual = stride == 1 and start.shape[-1] == filters
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalization(f"{name}_project_bn" if is_residual else name)(x)
    return keras.layers.Add(name=name)([x, start]) if is_residual else x


def _ends(x: keras.KerasTensor, convolution: keras.layers.Layer, name: str) -> keras.KerasTensor:
    x = _normalization(f"{name}_bn")(convolution(x))
    return keras.layers.ReLU(6.0, name=name)(x)


def _normalization(name: str) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name)


def load_torch_weights(network: keras.Model, file: Path) -> None:
    """Set the weights of `efficientnet_lite0` from a .pth file. Raises ValueError if it has others, or OSError."""
    arrays = read_torch_weights(file)
    for layer in network.layers:
        if layer.weights:
            layer.set_weights(list(_weights_of(layer, arrays)))


def _weights_of(layer: keras.layers.Layer, arrays: Arrays) -> Iterator[NDArray[np.float32]]:
    for name, order in _names_of(layer):
        if name not in arrays:
            raise ValueError(f"it has no {name}")
        array = arrays[name]
        yield array if order is None else array.transpose(order)


def _names_of(layer: keras.layers.Layer) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """Yield, for each weight of a layer, its name in the .pth file and the transposition into Keras's order of axes."""
    block, _, role = layer.name.partition("_")
    prefix = f"_blocks.{block.removeprefix('block')}." if block.startswith("block") else ""
    name = prefix + _ROLES[role if prefix else layer.name]
    if isinstance(layer, keras.layers.BatchNormalization):
        yield from ((f"{name}.{part}", None) for part in ("weight", "bias", "running_mean", "running_var"))
    else:
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        yield f"{name}.weight", (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)


_ROLES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
    "": "_bn2",  # a block without a shortcut ends in it
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
}
"""Names of layers, within their block if they are in one, and the .pth's."""
