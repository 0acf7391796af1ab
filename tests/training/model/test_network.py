"""Networks from layers as data, their fused normalisation, and the views that an exported graph averages."""

import keras
import numpy as np
import pytest

from training.model.layers import Conv2D, Flatten, GlobalAveragePool2D, MaxPool2D
from training.model.network import build_network
from training.model.normalization import fused_batch_normalization
from training.model.tta import average_shifts


@pytest.fixture
def features() -> np.ndarray:
    """Activations (8, 6, 5, 4), off centre and unevenly spread."""
    return np.random.default_rng(0).normal(3, (1, 2, 3, 4), (8, 6, 5, 4)).astype(np.float32)


def test_fused_normalisation_gives_what_keras_gives_in_training_and_after(features: np.ndarray) -> None:
    fused, plain = fused_batch_normalization(), keras.layers.BatchNormalization(momentum=0.9)
    for _ in range(3):
        assert fused(features, training=True).numpy() == pytest.approx(plain(features, training=True).numpy(), abs=1e-4)
    after, expected = fused(features, training=False).numpy(), plain(features, training=False).numpy()
    # The fused kernel's variance is the unbiased one, n / (n - 1) of Keras's.
    assert after == pytest.approx(expected, rel=0.01, abs=0.02)


def test_fused_normalisation_has_the_gradients_of_keras(features: np.ndarray) -> None:
    import tensorflow as tf

    wanted = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    found = []
    for layer in (fused_batch_normalization(), keras.layers.BatchNormalization()):
        inputs = tf.constant(features)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(layer(inputs, training=True) * wanted)
        found.append(tape.gradient(loss, [inputs, layer.gamma, layer.beta]))
    for ours, theirs in zip(*found, strict=True):
        assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-3)


def test_frozen_fused_normalisation_does_not_move(features: np.ndarray) -> None:
    layer = fused_batch_normalization()
    layer(features, training=False)
    layer.trainable = False
    layer(features, training=True)
    assert not layer.moving_mean.numpy().any()


def test_a_convolution_that_pools_answers_as_one_with_the_pool_after_it() -> None:
    """With positive scales, as they are at first, the largest stays the largest through normalisation and ReLU."""
    inside = build_network((Conv2D(4, batch_normalization=True, pool=2), Flatten()), shape=(12, 12, 1), classes=3)
    after = build_network((Conv2D(4, batch_normalization=True), MaxPool2D(), Flatten()), shape=(12, 12, 1), classes=3)
    after.set_weights(inside.get_weights())
    pictures = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), np.uint8)
    assert inside(pictures).numpy() == pytest.approx(after(pictures).numpy(), abs=1e-5)


def test_a_stride_takes_every_second_position() -> None:
    network = build_network((Conv2D(4, stride=2), GlobalAveragePool2D()), shape=(13, 13, 1), classes=3)
    assert network.layers[1].output.shape == (None, 6, 6, 4)


def test_shifted_views_are_averaged_before_the_softmax() -> None:
    layers = (Conv2D(4, batch_normalization=True), GlobalAveragePool2D())
    network = build_network(layers, shape=(10, 12, 1), classes=3)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 10, 12, 1), np.uint8)
    padded = np.pad(pictures, [(0, 0), (1, 1), (1, 1), (0, 0)])
    moved = [padded[:, 1 + y : 11 + y, 1 + x : 13 + x] for y, x in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))]
    logits = np.mean([np.log(network(each, training=False).numpy()) for each in moved], axis=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    averaged = average_shifts(network)
    assert averaged.layers[-1] is network.layers[-1]
    assert averaged.count_params() == network.count_params()
    assert averaged(pictures, training=False).numpy() == pytest.approx(expected, abs=1e-5)
