"""Build a Keras network from layers as data. It takes uint8 pictures: its first layer scales them to [0, 1]."""

from collections.abc import Sequence

from training.errors import OptionError
from training.model.backbone import NAME, build_backbone, divide
from training.model.layers import Backbone, Conv2D, Dense, Dropout, Flatten, GlobalAveragePool2D, Layer, MaxPool2D
from training.model.normalization import fused_batch_normalization
from training.tensorflow import keras


def build_network(
    layers: Sequence[Layer], *, shape: tuple[int, int, int], classes: int, backbone: Backbone | None = None
) -> keras.Model:
    """Return an untrained network: uint8 (N, H, W, C) → probabilities (N, `classes`).

    Raises OptionError if the pictures are too small for the layers, or the backbone's weights cannot be loaded.
    """
    scaled = keras.layers.Rescaling(1 / 255) if backbone is None else build_backbone(backbone, shape)
    stack = [keras.Input(shape, dtype="uint8", name="image"), scaled]
    for layer in layers:
        stack += _keras_layers(layer)
    stack.append(keras.layers.Dense(classes, activation="softmax", name="probabilities"))
    try:
        return keras.Sequential(stack)
    except ValueError as exc:
        raise OptionError(
            f"Pictures of {shape[1]}x{shape[0]} are too small for this preset's layers; give a larger --size."
        ) from exc


def divide_network(network: keras.Model, block: str) -> tuple[keras.Model, keras.Model]:
    """Divide a network before a block of its backbone, and return both parts as networks that share its layers.

    The first maps uint8 pictures to maps (N, h, w, C), the second float32 maps to probabilities. Raises OptionError if
    there is no such block.
    """
    front, back = divide(network.get_layer(NAME), block)
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    maps = keras.Input(front.output_shape[1:], name="maps")
    _, *head = network.layers
    return keras.Sequential([image, front]), keras.Sequential([maps, back, *head])


def _keras_layers(layer: Layer) -> list[keras.Layer]:
    match layer:
        case Conv2D():
            return _convolution(layer)
        case MaxPool2D(size):
            return [keras.layers.MaxPooling2D(size)]
        case GlobalAveragePool2D():
            return [keras.layers.GlobalAveragePooling2D()]
        case Flatten():
            return [keras.layers.Flatten()]
        case Dropout(rate):
            return [keras.layers.Dropout(rate)]
        case Dense(units):
            return [keras.layers.Dense(units, activation="relu")]


def _convolution(layer: Conv2D) -> list[keras.Layer]:
    is_plain = not layer.batch_normalization and layer.pool == 1
    convolution = keras.layers.Conv2D(
        layer.filters,
        layer.kernel,
        strides=layer.stride,
        padding=layer.padding,
        activation="relu" if is_plain else None,
        use_bias=not layer.batch_normalization,  # the normalisation has its own offset
    )
    if is_plain:
        return [convolution]
    pool = [keras.layers.MaxPooling2D(layer.pool)] if layer.pool > 1 else []
    normalization = [fused_batch_normalization()] if layer.batch_normalization else []
    return [convolution, *pool, *normalization, keras.layers.ReLU()]
