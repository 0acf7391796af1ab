"""The first picture of a GIF, as a viewer shows it over the background before anything moves."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from app.contract.formats.gif import MAX_BLOCKS
from app.contract.preprocessing import PreprocessingSpec, decode
from app.errors import UndecodableImage

SPEC = PreprocessingSpec(height=8, width=8, colour="rgb")
PALETTE = bytes((255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9))
WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


def codes_of(pixels: list[int]) -> bytes:
    """Return LZW codes of 3 bits: the table is cleared after each pixel, as encoders that do not compress do."""
    codes = [4, *(code for pixel in pixels for code in (pixel, 4)), 5]
    bits = "".join(f"{code:03b}"[::-1] for code in codes)
    return bytes(int(bits[at : at + 8].ljust(8, "0")[::-1], 2) for at in range(0, len(bits), 8))


def control(*, transparent: int | None = None, disposal: int = 0) -> bytes:
    return b"\x21\xf9\x04" + bytes([disposal << 2 | (transparent is not None), 10, 0, transparent or 0]) + b"\0"


def picture(pixels: list[int], width: int, *, left: int = 0, top: int = 0, palette: bytes = b"") -> bytes:
    flags = 0x81 if palette else 0
    place = struct.pack("<HHHHB", left, top, width, len(pixels) // width, flags)
    return b"," + place + palette + b"\x02" + blocks(codes_of(pixels))


def gif(width: int, height: int, *content: bytes, background: int = 0, palette: bytes = PALETTE) -> bytes:
    flags = 0x81 if palette else 0
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, background, 0) + palette + b"".join(content) + b";"


def test_transparent_parts_show_the_background_of_the_spec_not_of_the_file() -> None:
    data = gif(4, 1, control(transparent=1), picture([0, 1, 2, 1], 4), background=1)
    assert decode(data, SPEC).tolist() == [[[*RED], [*WHITE], [*BLUE], [*WHITE]]]


def test_only_the_first_picture_counts() -> None:
    first, second = picture([0, 1, 2, 1], 4), picture([2, 2, 2, 2], 4)
    for data in (
        gif(4, 1, control(transparent=1), first, control(), second),
        gif(4, 1, control(transparent=1), first, second),
    ):
        assert decode(data, SPEC).tolist() == [[[*RED], [*WHITE], [*BLUE], [*WHITE]]]
    assert decode(gif(4, 1, control(), first, control(transparent=1), second), SPEC)[0, 1].tolist() == [*GREEN]


@pytest.mark.parametrize("transparent", [None, 3])
def test_what_the_first_picture_does_not_cover_shows_the_background(transparent: int | None) -> None:
    data = gif(3, 3, control(transparent=transparent), picture([1], 1, left=1, top=2))
    expected = np.full((3, 3, 3), 255)
    expected[2, 1] = GREEN
    np.testing.assert_array_equal(decode(data, SPEC), expected)


@pytest.mark.parametrize("disposal", range(8))
def test_how_a_picture_is_to_be_replaced_says_nothing_of_it(disposal: int) -> None:
    data = gif(2, 1, control(disposal=disposal), picture([0, 2], 2), control(disposal=disposal), picture([1, 1], 2))
    assert decode(data, SPEC).tolist() == [[[*RED], [*BLUE]]]


@pytest.mark.parametrize(
    "extension",
    [
        b"\x21\xff\x0bNETSCAPE2.0" + blocks(b"\1\0\0"),
        b"\x21\xff\x0bICCRGBG1012" + blocks(bytes(700)),
        b"\x21\xff\x0bXMP DataXMP<x:xmpmeta/>" + bytes([1, *range(255, -1, -1), 0]),
        b"\x21\xfe" + blocks(b"a comment"),
        b"\x21\x01\x0c" + bytes(12) + blocks(b"plain text"),
        b"\x21\x99" + blocks(b"nobody knows"),
        b"\x21\xfe\0",
    ],
)
def test_extensions_are_passed_over(extension: bytes) -> None:
    data = gif(2, 1, extension, control(), extension, picture([0, 2], 2))
    assert decode(data, SPEC).tolist() == [[[*RED], [*BLUE]]]


def test_a_picture_may_have_a_palette_of_its_own() -> None:
    data = gif(2, 1, picture([0, 2], 2, palette=PALETTE[::-1]), palette=b"")
    assert decode(data, SPEC).tolist() == [[[9, 9, 9], [0, 255, 0]]]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("side", [40, 300])
def test_what_pillow_writes_is_read(mode: str, interlace: int, side: int) -> None:
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    drawn = Pillow.fromarray(noise).convert(mode)
    file = BytesIO()
    drawn.save(file, "GIF", interlace=interlace)
    np.testing.assert_array_equal(decode(file.getvalue(), SPEC), np.asarray(drawn.convert("RGB")))


@pytest.mark.parametrize("levels", [2, 4, 16])
def test_an_encoder_that_does_not_compress_is_read(levels: int) -> None:
    pixels = [(7 * at) % min(levels, 4) for at in range(32 * 32)]
    palette = np.frombuffer(PALETTE, np.uint8).reshape(4, 3)
    found = decode(gif(32, 32, picture(pixels, 32)), SPEC)
    np.testing.assert_array_equal(found, palette[np.array(pixels).reshape(32, 32)])


@pytest.mark.parametrize("codes", [b"\x24\x49\x92", b"\x04\x41\x10"], ids=["nothing else", "a pixel between"])
def test_a_table_that_is_cleared_over_and_over_costs_no_more_than_its_bytes(codes: bytes) -> None:
    """OpenCV took minutes for 10 MB of it: 3 µs a clearing."""
    place = struct.pack("<HHHHB", 0, 0, 28, 28, 0)
    data = gif(28, 28, b"," + place + b"\x02" + blocks(codes * 1_000_000))
    if codes[0] == 0x24:
        with pytest.raises(UndecodableImage):
            decode(data, SPEC)
    else:
        assert decode(data, SPEC).shape == (28, 28, 3)


def test_very_many_blocks_before_the_picture_are_rejected() -> None:
    with pytest.raises(UndecodableImage, match="more than 65,536 blocks"):
        decode(gif(2, 1, b"\x21\xfe\x01a\0" * (MAX_BLOCKS // 2 + 1), picture([0, 2], 2)), SPEC)


@pytest.mark.parametrize(
    "content",
    [b"", control(), picture([0], 1, left=1), picture([0, 1], 1, top=1), picture([0, 1], 2)[:-3], b"junk"],
    ids=["nothing", "no picture", "beside the screen", "below the screen", "cut off", "junk"],
)
def test_what_has_no_whole_picture_is_damaged(content: bytes) -> None:
    data = gif(1, 1, content) if content != b"junk" else gif(1, 1, content)[:-1]
    with pytest.raises(UndecodableImage, match="begins like GIF but cannot be decoded"):
        decode(data, SPEC)
