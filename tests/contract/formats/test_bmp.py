"""BMP files of every depth, mask and run-length code, written from the definition of the format."""

import struct
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from app.contract.formats.bmp import MAX_RLE_BYTES
from app.contract.preprocessing import PreprocessingSpec, decode
from app.errors import UndecodableImage, UnsupportedLayout

SPEC = PreprocessingSpec(height=8, width=8, colour="rgb")
PLAIN, RLE8, RLE4, BIT_FIELDS, JPEG, PNG, ALPHA_BIT_FIELDS = range(7)
HEADER_BYTES = {3: 40, 4: 108, 5: 124}


def bmp(
    body: bytes,
    width: int,
    height: int,
    bits: int,
    *,
    compression: int = PLAIN,
    version: int = 3,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
) -> bytes:
    """Return a BMP; `masks` lie behind the header of version 3, and inside those of versions 4 and 5."""
    fields = b"".join(struct.pack("<I", mask) for mask in masks)
    size = HEADER_BYTES[version]
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    header = (header + fields).ljust(size, b"\0")
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def words(values: NDArray[np.integer], bits: int) -> bytes:
    """Return rows of pixels from the bottom, each filled up to four bytes."""
    rows = [row.astype(f"<u{bits // 8}").tobytes() for row in values[::-1]]
    return b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)


MASKS = {
    "555": (16, (0x7C00, 0x03E0, 0x001F)),
    "565": (16, (0xF800, 0x07E0, 0x001F)),
    "rgb444": (16, (0x0F00, 0x00F0, 0x000F)),
    "565 backwards": (16, (0x001F, 0x07E0, 0xF800)),
    "888": (32, (0xFF0000, 0x00FF00, 0x0000FF)),
    "888 backwards": (32, (0x0000FF, 0x00FF00, 0xFF0000)),
    "888 high": (32, (0xFF000000, 0x00FF0000, 0x0000FF00)),
    "10 bits each": (32, (0x3FF00000, 0x000FFC00, 0x000003FF)),
    "1, 7 and 5 bits": (16, (0x8000, 0x0FE0, 0x001F)),
}


@pytest.mark.parametrize("version", HEADER_BYTES)
@pytest.mark.parametrize("kind", MASKS)
def test_each_channel_is_spread_over_all_levels(kind: str, version: int) -> None:
    bits, masks = MASKS[kind]
    values = np.random.default_rng(1).integers(0, 1 << bits, (5, 7))
    data = bmp(words(values, bits), 7, 5, bits, compression=BIT_FIELDS, version=version, masks=masks)
    levels = [(values & mask) / mask * 255 for mask in masks]
    assert np.abs(decode(data, SPEC) - np.stack(levels, axis=2)).max() <= 0.5 + 1e-6


def test_full_channels_are_full() -> None:
    data = bmp(words(np.full((4, 4), 0xFFFF), 16), 4, 4, 16)
    assert (decode(data, SPEC) == 255).all()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("alpha", [0x00, 0x80, 0xFF])
def test_a_declared_alpha_shows_the_background(version: int, alpha: int) -> None:
    masks = (0xFF0000, 0x00FF00, 0x0000FF, 0xFF000000)
    values = np.full((4, 4), 0x0000FF | alpha << 24)
    values[0, 0] = 0xFF0000FF
    data = bmp(words(values, 32), 4, 4, 32, compression=BIT_FIELDS, version=version, masks=masks)
    expected = round(255 - 255 * alpha / 255)
    assert decode(data, SPEC)[2, 2].tolist() == [expected, expected, 255]
    assert decode(data, SPEC)[0, 0].tolist() == [0, 0, 255]


def test_an_alpha_that_is_empty_everywhere_is_none() -> None:
    masks = (0xFF0000, 0x00FF00, 0x0000FF, 0xFF000000)
    data = bmp(words(np.full((4, 4), 0x0000FF), 32), 4, 4, 32, compression=BIT_FIELDS, version=5, masks=masks)
    assert (decode(data, SPEC) == (0, 0, 255)).all()


def test_rows_may_begin_at_the_top() -> None:
    values = np.arange(20).reshape(4, 5) * 1000
    up = bmp(words(values, 32), 5, 4, 32)
    down = bmp(words(values[::-1], 32), 5, -4, 32)
    np.testing.assert_array_equal(decode(up, SPEC), decode(down, SPEC))


@pytest.mark.parametrize("masks", [(0, 0x7E0, 0x1F), (0x5000, 0x7E0, 0x1F), (0x1F0000, 0x7E0, 0x1F)])
def test_masks_that_say_nothing_sensible_are_named(masks: tuple[int, ...]) -> None:
    data = bmp(words(np.zeros((4, 4), int), 16), 4, 4, 16, compression=BIT_FIELDS, masks=masks)
    with pytest.raises(UnsupportedLayout, match="A BMP with colour masks of scattered, missing or too many bits"):
        decode(data, SPEC)


@pytest.mark.parametrize("compression", [JPEG, PNG])
def test_another_format_inside_is_named(compression: int) -> None:
    with pytest.raises(UnsupportedLayout, match=r"A BMP with a (JPEG|PNG) inside is not supported"):
        decode(bmp(b"", 4, 4, 0, compression=compression), SPEC)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_what_pillow_writes_is_read(mode: str) -> None:
    y, x = np.mgrid[:9, :13]
    picture = Pillow.fromarray(np.stack([x * 19, y * 28, 255 - x * 19], axis=2).astype(np.uint8)).convert(mode)
    file = BytesIO()
    picture.save(file, "BMP")
    found = decode(file.getvalue(), SPEC)
    found = found if found.ndim == 3 else np.repeat(found[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(found, np.asarray(picture.convert("RGB")))


# Run-length codes

PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)


def coded(codes: bytes, width: int, height: int, bits: int = 8) -> bytes:
    entries = np.concatenate([PALETTE[: 1 << bits, ::-1], np.zeros((1 << bits, 1), np.uint8)], axis=1).tobytes()
    return bmp(codes, width, height, bits, compression=RLE8 if bits == 8 else RLE4, palette=entries)


def indices(*rows: list[int]) -> NDArray[np.uint8]:
    """Return the colours of rows that are given from the bottom, as a file has them."""
    return np.asarray(PALETTE[np.array(rows[::-1])])


END_OF_ROW, END = b"\0\0", b"\0\1"


def test_codes_are_read() -> None:
    codes = b"\3\7" + b"\1\2" + END_OF_ROW + b"\0\3\4\5\6\0" + b"\1\1" + END_OF_ROW + b"\4\11" + END
    expected = indices([7, 7, 7, 2], [4, 5, 6, 1], [9, 9, 9, 9])
    np.testing.assert_array_equal(decode(coded(codes, 4, 3), SPEC), expected)


def test_a_row_that_is_longer_than_the_width_is_cut() -> None:
    codes = b"\6\1" + END_OF_ROW + b"\2\3\4\4" + END_OF_ROW + b"\0\6\1\2\3\4\5\6" + END
    expected = indices([1, 1, 1, 1], [3, 3, 4, 4], [1, 2, 3, 4])
    np.testing.assert_array_equal(decode(coded(codes, 4, 3), SPEC), expected)


def test_what_is_skipped_has_the_first_colour() -> None:
    codes = b"\1\5" + b"\0\2\1\1" + b"\1\6" + END
    expected = indices([5, 0, 0], [0, 0, 6], [0, 0, 0])
    np.testing.assert_array_equal(decode(coded(codes, 3, 3), SPEC), expected)


def test_codes_of_four_bits_alternate_between_two_colours() -> None:
    codes = b"\5\x12" + END_OF_ROW + b"\0\5\x34\x56\x70\0" + END
    expected = indices([1, 2, 1, 2, 1], [3, 4, 5, 6, 7])
    np.testing.assert_array_equal(decode(coded(codes, 5, 2, bits=4), SPEC), expected)


@pytest.mark.parametrize("codes", [b"", b"\4\1", b"\4\1" + END_OF_ROW + b"\2\1", b"\4\1\0\2\1"])
def test_codes_that_end_before_the_picture_are_damage(codes: bytes) -> None:
    with pytest.raises(UndecodableImage, match="begins like BMP but cannot be decoded"):
        decode(coded(codes, 4, 3), SPEC)


def test_very_many_codes_are_rejected() -> None:
    with pytest.raises(UnsupportedLayout, match="more than 1 MiB of run-length codes"):
        decode(coded(b"\1\1" * (MAX_RLE_BYTES // 2 + 1), 4, 3), SPEC)


@given(st.binary(max_size=200), st.integers(1, 9), st.integers(1, 9), st.sampled_from([4, 8]))
def test_any_codes_give_a_picture_or_an_error(codes: bytes, width: int, height: int, bits: int) -> None:
    with suppress(UndecodableImage):
        assert decode(coded(codes, width, height, bits), SPEC).shape == (height, width, 3)
