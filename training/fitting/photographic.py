"""Data augmentation that imitates other cameras, light and backgrounds: for photos, not for drawings.

It works on float pictures (N, H, W, C) in levels from 0 to 255, grey or RGB. Mirroring is its only geometric change.
"""

from training.model.preset import Augmentation
from training.tensorflow import tf

# The ranges (±) at `colour` 1: factors as powers of e, and shifts as shares of white.
_WHITE_BALANCE = 0.15
_CONTRAST = 0.4
_GAMMA = 0.3
_SATURATION = 0.6
_BRIGHTNESS = 0.2
_FALL_OFF = 0.25
_COLOURLESS = 0.2
"""The share of pictures that lose all colour, so that no class is recognised by colour alone."""

_LUMINANCE = (0.299, 0.587, 0.114)
_ERASED_SIDE = (0.1, 0.4)


def photograph(images: tf.Tensor, augmentation: Augmentation, *, seed: tf.Tensor) -> tf.Tensor:
    """Return augmented copies, clipped to [0, 255]. `seed` is an integer tensor (2,)."""
    if augmentation.mirror:
        images = mirror(images, tf.random.fold_in(seed, 0))
    if augmentation.colour:
        images = _light(images, augmentation.colour, tf.random.fold_in(seed, 1))
    if augmentation.blur:
        images = _blur(images, augmentation.blur, tf.random.fold_in(seed, 2))
    if augmentation.noise:
        images = _noise(images, augmentation.noise, tf.random.fold_in(seed, 3))
    if augmentation.erase:
        images = _erase(images, augmentation.erase, tf.random.fold_in(seed, 4))
    return images


class _Draws:
    """Uniform draws, one for each picture (or for each of its channels). Every call has its own seed."""

    def __init__(self, images: tf.Tensor, seed: tf.Tensor) -> None:
        self._seed, self._calls = seed, 0
        self._count, self._channels = tf.shape(images)[0], images.shape[-1]

    def __call__(self, low: float, high: float, *, by_channel: bool = False) -> tf.Tensor:
        self._calls += 1
        shape = [self._count, 1, 1, self._channels if by_channel else 1]
        return tf.random.stateless_uniform(shape, tf.random.fold_in(self._seed, self._calls), low, high)

    def happens(self, share: float) -> tf.Tensor:
        return self(0.0, 1.0) < share


def mirror(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Flip half of the images left to right."""
    return tf.where(_Draws(images, seed).happens(0.5), tf.reverse(images, [2]), images)


def _light(images: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Change saturation, white balance, contrast, brightness and gamma, and darken the picture towards one side."""
    draw = _Draws(images, seed)
    images = images / 255.0
    if images.shape[-1] == 3:
        grey = tf.reduce_sum(images * tf.constant(_LUMINANCE), axis=-1, keepdims=True)
        saturation = 1.0 + draw(-_SATURATION, _SATURATION) * strength
        images = grey + (images - grey) * tf.where(draw.happens(_COLOURLESS), 0.0, saturation)
        images *= tf.exp(draw(-_WHITE_BALANCE, _WHITE_BALANCE, by_channel=True) * strength)
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    images = mean + (images - mean) * tf.exp(draw(-_CONTRAST, _CONTRAST) * strength)
    across, down = _places(images)
    fall_off = draw(-_FALL_OFF, _FALL_OFF) * (across - 0.5) + draw(-_FALL_OFF, _FALL_OFF) * (down - 0.5)
    images += (draw(-_BRIGHTNESS, _BRIGHTNESS) + fall_off) * strength
    images = tf.pow(tf.clip_by_value(images, 0.0, 1.0), tf.exp(draw(-_GAMMA, _GAMMA) * strength))
    return images * 255.0


def _blur(images: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    blurred = tf.nn.avg_pool2d(images, 3, 1, "SAME")  # ignores padding, so that edges do not darken
    return tf.where(_Draws(images, seed).happens(share), blurred, images)


def _noise(images: tf.Tensor, levels: float, seed: tf.Tensor) -> tf.Tensor:
    own = tf.random.stateless_normal(tf.shape(images), tf.random.fold_in(seed, 0))
    return images + own * _Draws(images, seed)(0.0, levels)


def _erase(images: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Cover a rectangle with one colour in a share of the pictures (Zhong et al. 2020, arXiv:1708.04896)."""
    draw = _Draws(images, seed)
    across, down = _places(images)
    covered = (tf.abs(across - draw(0.0, 1.0)) < draw(*_ERASED_SIDE) / 2) & (
        tf.abs(down - draw(0.0, 1.0)) < draw(*_ERASED_SIDE) / 2
    )
    return tf.where(covered & draw.happens(share), draw(0.0, 255.0, by_channel=True), images)


def _places(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return each column's place from 0 at the left to 1, and each row's from 0 at the top, ready to broadcast."""
    shape = tf.shape(images)
    across, down = tf.linspace(0.0, 1.0, shape[2]), tf.linspace(0.0, 1.0, shape[1])
    return tf.reshape(across, [1, 1, -1, 1]), tf.reshape(down, [1, -1, 1, 1])
