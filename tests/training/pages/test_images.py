"""Pictures inside a page are as large as the page shows them, whatever they were."""

import base64

import numpy as np
import pytest

from app.contract.preprocessing import PreprocessingSpec, decode
from training.pages.images import inline


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def shown(url: str) -> np.ndarray:
    spec = PreprocessingSpec(height=1, width=1, colour="grey")
    return decode(base64.b64decode(url.partition(",")[2]), spec)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_network_sees_takes_no_more_of_a_page_than_a_thumbnail(channels: int) -> None:
    image = inline(noise(512, 384, channels))
    assert shown(image.url).shape[:2] == (128, 96)
    assert not image.small
    assert len(image.url) < 25_000


def test_a_small_picture_keeps_its_pixels() -> None:
    digit = noise(28, 28, 1)
    image = inline(digit)
    assert image.small
    np.testing.assert_array_equal(shown(image.url), digit[..., 0])
