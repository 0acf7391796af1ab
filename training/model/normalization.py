"""Batch normalisation in one pass. It knows nothing of networks or recipes."""

from typing import Any

from training.tensorflow import keras, tf


def fused_batch_normalization() -> keras.layers.BatchNormalization:
    """Return a Keras BatchNormalization for (N, H, W, C) that trains with TensorFlow's fused kernel.

    Keras 3 computes mean, variance and scale in separate steps, each of which reads the whole activation again and
    casts it to float32 first: about half the time of a small network's step on a CPU. In inference it is Keras's own
    arithmetic, with the same weights.
    """
    # Keras's 0.99 lags by hundreds of steps: whole epochs here.
    return FusedBatchNormalization(momentum=0.9)


# Registered, so that Keras finds it when a network is copied from its configuration.
@keras.saving.register_keras_serializable(package="imageclass")
class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        if self.synchronized or not (training and self.trainable):  # the fused kernel sees only one replica's share
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], variance.dtype)
        variance *= (count - 1) / count  # the kernel's is unbiased, Keras's is the batch's own
        for moving, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + found * (1 - self.momentum))
        return outputs
