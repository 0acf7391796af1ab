"""Test-time augmentation inside the graph. It knows nothing of training."""

from training.tensorflow import keras

_SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


def average_shifts(network: keras.Model) -> keras.Model:
    """Return a model that averages over the picture and copies shifted by a pixel to each side, with the same weights.

    The input of the last layer is averaged, which for a linear layer averages its logits; the last layer, including
    softmax, is the network's own. If the last layer reads the means of maps, the maps are averaged instead: the answer
    is the same, and there are maps to show. Inference takes five times the work, training none more.
    """
    *body, head = network.layers
    after = [head]
    while body and isinstance(body[-1], (keras.layers.Dropout, keras.layers.GlobalAveragePooling2D)):
        after.insert(0, body.pop())
    height, width = network.input_shape[1:3]
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    padded = keras.ops.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]])
    views = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in _SHIFTS]
    answer = keras.ops.concatenate(views, axis=0)
    for layer in body:
        answer = layer(answer)
    answer = keras.ops.mean(keras.ops.reshape(answer, (len(_SHIFTS), -1, *answer.shape[1:])), axis=0)
    for layer in after:
        answer = layer(answer)
    return keras.Model(image, answer)
