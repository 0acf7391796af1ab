"""A GIF that clears its code table over and over is refused before it is decoded; every ordinary one is decoded."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from app.contract.gif import _clearings, _first_picture, check_gif
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.errors import UndecodableImage
from tests.oddities import pillow

SPEC = PreprocessingSpec(height=8, width=8, colour="grey")


def gif_of(codes: bytes, *, smallest: int = 2, before: bytes = b"") -> bytes:
    blocks = b"".join(bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255))
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, 28, 28, 0)
    screen = b"GIF89a" + struct.pack("<HHBBB", 28, 28, 0x81, 0, 0) + bytes(12)
    return screen + before + descriptor + bytes([smallest]) + blocks + b"\0;"


@pytest.mark.parametrize("codes", [b"\x24\x49\x92", b"\x04\x41\x10"], ids=["nothing else", "a pixel between"])
def test_clearing_over_and_over_is_refused(monkeypatch: pytest.MonkeyPatch, codes: bytes) -> None:
    """Found by looking for such: 10 MB took OpenCV minutes."""
    monkeypatch.delattr(cv2, "imdecodeWithMetadata")
    with pytest.raises(UndecodableImage, match="clears its code table"):
        preprocess(gif_of(codes * 100_000), SPEC)


def test_very_many_blocks_before_the_picture_are_refused() -> None:
    with pytest.raises(UndecodableImage, match="more than 65,536 blocks"):
        check_gif(gif_of(b"", before=b"\x21\xfe\x01a\0" * 40_000))


@pytest.mark.parametrize("levels", [2, 4, 16, 256])
@pytest.mark.parametrize("side", [40, 700])
def test_what_an_encoder_writes_is_decoded_and_cleared_as_seldom_as_it_does(levels: int, side: int) -> None:
    noise = np.random.default_rng(levels).integers(0, levels, (side, side), np.uint8)
    picture = Pillow.fromarray(noise, "P")
    picture.putpalette([level for level in range(256) for _ in range(3)])
    data = pillow(picture, "GIF")
    smallest, codes = _first_picture(data)
    # Noise takes a code for each pixel or a few; the table has room for less than 4,096.
    assert _clearings(codes, smallest, 10**9) <= 2 + side * side // 3000
    tensor = preprocess(data, PreprocessingSpec(height=side, width=side, colour="grey"))
    np.testing.assert_array_equal(tensor[..., 0], noise)
