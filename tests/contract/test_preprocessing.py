"""Encoded pictures of every format become the tensors that the spec says, or an ImageError."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from app.contract.bundle import open_bundle
from app.contract.header import ImageHeader, read_header
from app.contract.preprocessing import Image, PreprocessingSpec, decode, jpeg_divisor, prepare, preprocess, seen_part
from app.errors import ImageError, UndecodableImage, UnsupportedFormat, UnsupportedLayout

Colour = Literal["grey", "rgb"]
Resize = Literal["stretch", "pad", "crop"]
Interpolation = Literal["area", "linear"]
LOSSLESS_WEBP = [cv2.IMWRITE_WEBP_QUALITY, 101]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NO_PARAMETERS: list[int] = []
# (suffix, parameters, grey levels by which a decoded picture may differ from what was encoded)
ENCODINGS: dict[str, tuple[str, list[int], int]] = {
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 100], 3),
    "progressive jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, 1], 3),
    "png": (".png", [], 0),
    "lossless webp": (".webp", LOSSLESS_WEBP, 0),
    "lossy webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 100], 4),
    "bmp": (".bmp", [], 0),
    "gif": (".gif", [], 20),  # OpenCV writes it in a palette of its own
    "tiff": (".tiff", [], 0),
    "plain tiff": (".tiff", [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE], 0),
}


def spec_of(picture: NDArray[Any], colour: Colour, **changes: Any) -> PreprocessingSpec:
    """Return the spec that changes nothing of the picture's size."""
    return PreprocessingSpec(height=picture.shape[0], width=picture.shape[1], colour=colour, **changes)


def encode(picture: NDArray[Any], suffix: str = ".png", parameters: list[int] = NO_PARAMETERS) -> bytes:
    """Encode grey, RGB or RGBA pixels."""
    order = [2, 1, 0, 3] if picture.ndim == 3 else []
    stored = picture if picture.ndim == 2 else np.ascontiguousarray(picture[..., order[: picture.shape[2]]])
    done, data = cv2.imencode(suffix, stored, parameters)
    assert done
    return data.tobytes()


def plain(*colour: int, height: int = 16, width: int = 16) -> Image:
    return np.full((height, width, len(colour)), colour, np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, depth: int, colour_type: int, *rows: bytes, before: bytes = b"") -> bytes:
    """Return a PNG of raw rows, each without its filter byte; `before` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def gif(palette: bytes, pixels: list[int], transparent: int) -> bytes:
    """Return a GIF of one row in a palette of four colours; every code is cleared, so that all have 3 bits."""
    codes = [4, *(code for pixel in pixels for code in (pixel, 4)), 5]
    bits = "".join(f"{code:03b}"[::-1] for code in codes)
    packed = bytes(int(bits[at : at + 8].ljust(8, "0")[::-1], 2) for at in range(0, len(bits), 8))
    return (
        b"GIF89a" + struct.pack("<HHBBB", len(pixels), 1, 0x81, 0, 0) + palette
        + b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
        + b"," + struct.pack("<HHHHB", 0, 0, len(pixels), 1, 0) + b"\x02" + bytes([len(packed)]) + packed + b"\0;"
    )  # fmt: skip


def tiff(
    pixels: NDArray[Any],
    *,
    order: Literal["<", ">"] = "<",
    orientation: int = 1,
    sample_format: int = 1,
    alpha_kind: int | None = None,
) -> bytes:
    """Return an uncompressed TIFF of grey, RGB or RGBA pixels in either byte order."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    body = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    short, long = ("H", 3), ("I", 4)
    tags: dict[int, tuple[tuple[str, int], list[int]]] = {
        256: (long, [width]),
        257: (long, [height]),
        258: (short, [8 * pixels.dtype.itemsize] * channels),
        259: (short, [1]),
        262: (short, [1 if channels == 1 else 2]),
        273: (long, [8]),
        274: (short, [orientation]),
        277: (short, [channels]),
        278: (long, [height]),
        279: (long, [len(body)]),
        339: (short, [sample_format] * channels),
    }
    if alpha_kind is not None:
        tags[338] = (short, [alpha_kind])
    entries = further = b""
    for tag, ((code, kind), values) in sorted(tags.items()):
        value = struct.pack(order + code * len(values), *values)
        if len(value) > 4:
            value, further = struct.pack(order + "I", 8 + len(body) + len(further)), further + value
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body) + len(further))
    return start + body + further + struct.pack(order + "H", len(tags)) + entries + bytes(4)


# Orientation

# Two squares and a dark band: no turn and no mirror leaves it as it is.
UPRIGHT = np.full((32, 48), 250, np.uint8)
UPRIGHT[:16, :16], UPRIGHT[16:, :16], UPRIGHT[16:, 16:32] = 10, 120, 180


def as_stored(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return the pixels whose row 0 and column 0 lie where EXIF says that they do, by the table of the standard."""
    stored = {
        1: upright,  # row 0 at the top, column 0 at the left
        2: np.fliplr(upright),  # top, right
        3: np.rot90(upright, 2),  # bottom, right
        4: np.flipud(upright),  # bottom, left
        5: np.swapaxes(upright, 0, 1),  # left, top
        6: np.rot90(upright, 1),  # right, top
        7: np.swapaxes(np.rot90(upright, 2), 0, 1),  # right, bottom
        8: np.rot90(upright, -1),  # left, bottom
    }[orientation]
    return np.ascontiguousarray(stored)


def exif(orientation: int, order: Literal["<", ">"]) -> NDArray[np.uint8]:
    start = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return np.frombuffer(start + struct.pack(order + "IH", 8, 1) + entry + bytes(4), np.uint8)


def with_exif(pixels: NDArray[Any], suffix: str, block: NDArray[np.uint8]) -> bytes:
    parameters = LOSSLESS_WEBP if suffix == ".webp" else [cv2.IMWRITE_JPEG_QUALITY, 100]
    done, data = cv2.imencodeWithMetadata(suffix, pixels, [cv2.IMAGE_METADATA_EXIF], [block], parameters)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_picture_of_any_orientation_comes_out_upright(
    suffix: str, orientation: int, order: Literal["<", ">"], colour: Colour
) -> None:
    stored = as_stored(UPRIGHT, orientation)
    data = (
        tiff(stored, order=order, orientation=orientation)
        if suffix == ".tiff"
        else with_exif(stored, suffix, exif(orientation, order))
    )
    tensor = preprocess(data, spec_of(UPRIGHT, colour))
    for channel in np.moveaxis(tensor, 2, 0):
        np.testing.assert_allclose(channel, UPRIGHT, atol=6 if suffix == ".jpg" else 0)


LARGE = np.kron(UPRIGHT, np.ones((20, 20), np.uint8))
REDUCED: dict[str, Any] = {"version": 2, "jpeg_scale": "reduced"}


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_of_any_orientation_comes_out_upright_at_a_reduced_scale(orientation: int, colour: Colour) -> None:
    data = with_exif(as_stored(LARGE, orientation), ".jpg", exif(orientation, "<"))
    spec = spec_of(UPRIGHT, colour, **REDUCED)
    assert jpeg_divisor(read_header(data), spec) == 4
    assert min(decode(data, spec).shape[:2]) == 160
    for channel in np.moveaxis(preprocess(data, spec), 2, 0):
        np.testing.assert_allclose(channel, UPRIGHT, atol=6)


@pytest.mark.parametrize(
    ("width", "height", "divisor"),
    [
        (8064, 6048, 8), (6048, 8064, 8), (4032, 3024, 4), (1792, 1792, 4), (1790, 1792, 4), (1789, 1792, 4),
        (1788, 9000, 2), (897, 895, 2), (894, 9000, 1), (448, 448, 1), (10, 10, 1),
    ],
)  # fmt: skip
def test_the_reduced_scale_is_the_smallest_with_sides_twice_the_target_or_more(
    width: int, height: int, divisor: int
) -> None:
    header = ImageHeader("jpeg", width, height)
    for target in ((224, 224), (224, 100), (100, 224)):
        spec = PreprocessingSpec(height=target[0], width=target[1], colour="rgb", **REDUCED)
        assert jpeg_divisor(header, spec) == divisor
    assert jpeg_divisor(header, PreprocessingSpec(version=2, height=224, width=224, colour="rgb")) == 1


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("flags", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_picture_at_a_reduced_scale_is_nearly_the_one_at_full_scale(
    data_folder: Path, flags: list[int], resize: Resize, colour: Colour
) -> None:
    photo = cv2.imdecode(np.fromfile(data_folder / "photos" / "shoes.jpg", np.uint8), cv2.IMREAD_COLOR)
    assert photo is not None
    picture = cv2.resize(photo, (1000, 760), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", picture, flags)[1].tobytes()
    full = PreprocessingSpec(height=90, width=90, colour=colour, resize=resize)
    reduced = PreprocessingSpec(height=90, width=90, colour=colour, resize=resize, **REDUCED)
    assert decode(data, reduced).shape[:2] == (190, 250)
    difference = np.abs(preprocess(data, reduced).astype(int) - preprocess(data, full))
    assert 0 < difference.mean() < 1


def test_nothing_but_a_jpeg_is_read_at_a_reduced_scale() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    full, reduced = (PreprocessingSpec(height=10, width=10, colour="rgb", **changes) for changes in ({}, REDUCED))
    np.testing.assert_array_equal(preprocess(data, full), preprocess(data, reduced))


def test_the_first_version_has_no_scale_and_is_written_without() -> None:
    with pytest.raises(ValidationError, match="preprocessing of version 1 has no jpeg_scale"):
        PreprocessingSpec(height=8, width=8, colour="grey", jpeg_scale="reduced")
    assert "jpeg_scale" not in PreprocessingSpec(height=8, width=8, colour="grey").model_dump()
    assert PreprocessingSpec(height=8, width=8, colour="grey", **REDUCED).model_dump()["jpeg_scale"] == "reduced"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_any_depth_comes_out_upright(dtype: type[np.generic], channels: int, orientation: int) -> None:
    levels = UPRIGHT.astype(dtype) * (1 if dtype == np.uint8 else 257)
    opaque = np.full_like(levels, 255 if dtype == np.uint8 else 65535)
    upright = levels if channels == 1 else np.stack([levels] * 3 + [opaque] * (channels - 3), axis=2)
    data = tiff(as_stored(upright, orientation), orientation=orientation, alpha_kind=2 if channels == 4 else None)
    np.testing.assert_array_equal(preprocess(data, spec_of(UPRIGHT, "grey"))[..., 0], UPRIGHT)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_orientation_that_does_not_exist_turns_nothing(suffix: str, orientation: int) -> None:
    tensor = preprocess(with_exif(UPRIGHT, suffix, exif(orientation, "<")), spec_of(UPRIGHT, "grey"))
    np.testing.assert_allclose(tensor[..., 0], UPRIGHT, atol=6)


@given(
    st.sampled_from([".png", ".webp"]),
    st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]),
    st.binary(min_size=1, max_size=60),
)
def test_nonsense_in_place_of_exif_is_no_error(suffix: str, start: bytes, block: bytes) -> None:
    data = with_exif(UPRIGHT[:16, :16], suffix, np.frombuffer(start + block, np.uint8))
    assert preprocess(data, spec_of(UPRIGHT[:16, :16], "grey")).shape == (16, 16, 1)


# Alpha


def over(colour: tuple[int, int, int], alpha: int, background: tuple[int, int, int]) -> list[int]:
    """Return a colour over a background, rounded to the nearest level."""
    return [round((alpha * front + (255 - alpha) * back) / 255) for front, back in zip(colour, background, strict=True)]


@pytest.mark.parametrize("background", [None, (255, 255, 255), (0, 0, 0), (10, 200, 77)])
@pytest.mark.parametrize("encoding", ["png", "lossless webp", "tiff"])
def test_transparent_pixels_show_the_background(encoding: str, background: tuple[int, int, int] | None) -> None:
    suffix, parameters, _ = ENCODINGS[encoding]
    picture = np.array([[(200, 100, 50, 255), (200, 100, 50, 0)]], np.uint8)
    spec = spec_of(picture, "rgb") if background is None else spec_of(picture, "rgb", background=background)
    tensor = preprocess(encode(picture, suffix, parameters), spec)
    assert tensor.tolist() == [[[200, 100, 50], list(background or (255, 255, 255))]]


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 77)])
def test_half_transparent_pixels_are_mixed_and_rounded_to_the_nearest_level(background: tuple[int, int, int]) -> None:
    alphas = np.arange(256, dtype=np.uint8)
    picture = np.empty((1, 256, 4), np.uint8)
    picture[..., :3], picture[..., 3] = (201, 100, 3), alphas
    expected = [over((201, 100, 3), alpha, background) for alpha in range(256)]
    for suffix in (".png", ".webp"):
        tensor = preprocess(encode(picture, suffix, LOSSLESS_WEBP), spec_of(picture, "rgb", background=background))
        assert tensor[0].tolist() == expected


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 77)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_unmultiplied_alpha_is_mixed_once(dtype: type[np.generic], background: tuple[int, int, int]) -> None:
    """libtiff hands out 8-bit colours that are multiplied by their alpha, and 16-bit ones as they are."""
    picture = np.empty((1, 256, 4), np.uint8)
    picture[..., :3], picture[..., 3] = (201, 100, 3), np.arange(256)
    stored = picture.astype(dtype) * (1 if dtype == np.uint8 else 257)
    tensor = preprocess(tiff(stored, alpha_kind=2), spec_of(picture, "rgb", background=background))
    expected = [over((201, 100, 3), alpha, background) for alpha in range(256)]
    np.testing.assert_allclose(tensor[0], expected, atol=1)  # rounded twice


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_multiplied_alpha_is_mixed_once(dtype: type[np.generic]) -> None:
    picture = np.array([[(100, 50, 0, 100), (0, 0, 0, 0), (9, 8, 7, 255)]], dtype)
    stored = picture * (1 if dtype == np.uint8 else 257)
    tensor = preprocess(tiff(stored, alpha_kind=1), spec_of(picture, "rgb"))
    assert tensor.tolist() == [[[255, 205, 155], [255, 255, 255], [9, 8, 7]]]


def test_lossy_webp_has_alpha() -> None:
    picture = plain(200, 100, 50, 255, height=32, width=32)
    picture[:, 16:, 3] = 0
    tensor = preprocess(encode(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]), spec_of(picture, "rgb"))
    assert (tensor[:, 16:] == 255).all()
    np.testing.assert_allclose(tensor[:, :14], np.broadcast_to((200, 100, 50), (32, 14, 3)), atol=8)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_png_with_alpha_is_laid_over_the_background(depth: int) -> None:
    levels = (100, 255, 100, 128, 100, 0)
    row = bytes(levels) if depth == 8 else b"".join(bytes([level, level]) for level in levels)
    data = png(3, depth, 4, row)
    spec = PreprocessingSpec(height=1, width=3, colour="rgb", background=(0, 0, 200))
    assert preprocess(data, spec).tolist() == [[[100, 100, 100], over((100, 100, 100), 128, (0, 0, 200)), [0, 0, 200]]]


def test_palette_png_with_transparency_is_laid_over_the_background() -> None:
    palette = chunk(b"PLTE", bytes([*RED, *GREEN, *BLUE])) + chunk(b"tRNS", bytes([0, 128]))
    spec = PreprocessingSpec(height=1, width=3, colour="rgb", background=(0, 0, 200))
    tensor = preprocess(png(3, 8, 3, bytes([0, 1, 2]), before=palette), spec)
    assert tensor.tolist() == [[[0, 0, 200], over(GREEN, 128, (0, 0, 200)), list(BLUE)]]


def test_rgb_png_with_a_transparent_colour_is_laid_over_the_background() -> None:
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    spec = PreprocessingSpec(height=1, width=2, colour="rgb", background=(0, 0, 200))
    assert preprocess(png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), before=key), spec).tolist() == [[[0, 0, 200], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("depth", "row", "key", "other"),
    [(1, b"\x40", 0, 255), (2, b"\x60", 1, 170), (4, b"\x2f", 2, 255), (8, b"\x07\x64", 7, 100)],
)
def test_grey_png_with_a_transparent_level_is_laid_over_the_background(
    depth: int, row: bytes, key: int, other: int
) -> None:
    """This is how optimisers store a black drawing on nothing."""
    data = png(2, depth, 0, row, before=chunk(b"tEXt", b"a\0b") + chunk(b"tRNS", struct.pack(">H", key)))
    spec = PreprocessingSpec(height=1, width=2, colour="rgb", background=(0, 0, 200))
    assert preprocess(data, spec).tolist() == [[[0, 0, 200], [other] * 3]]


def test_transparent_level_of_16_bits_is_compared_whole() -> None:
    data = png(3, 16, 0, bytes([1, 0, 1, 1, 100, 0]), before=chunk(b"tRNS", b"\x01\x00"))
    tensor = preprocess(data, PreprocessingSpec(height=1, width=3, colour="grey"))
    assert tensor[0, :, 0].tolist() == [255, 1, 100]


def test_transparent_gif_is_laid_over_the_background() -> None:
    data = gif(bytes([*RED, *GREEN, *BLUE, 0, 0, 0]), [0, 1, 2], transparent=1)
    spec = PreprocessingSpec(height=1, width=3, colour="rgb", background=(10, 20, 30))
    assert preprocess(data, spec).tolist() == [[list(RED), [10, 20, 30], list(BLUE)]]


def test_fourth_byte_of_a_bmp_is_padding() -> None:
    picture = plain(200, 100, 50, 0)
    np.testing.assert_array_equal(preprocess(encode(picture, ".bmp"), spec_of(picture, "rgb")), picture[..., :3])


# Depth


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_pixels_are_divided_by_256(suffix: str, channels: int) -> None:
    levels = np.array([[0, 255, 256, 511, 0x1234, 0xFFFF]], np.uint16)
    opaque = np.full_like(levels, 0xFFFF)
    picture = levels if channels == 1 else np.stack([levels, levels, levels, opaque][:channels], axis=2)
    tensor = preprocess(encode(picture, suffix), spec_of(picture, "rgb"))
    assert [row.tolist() for row in tensor[0]] == [[level] * 3 for level in (0, 0, 1, 1, 0x12, 0xFF)]


@pytest.mark.parametrize(
    ("depth", "row", "levels"), [(1, b"\x40", [0, 255]), (2, b"\x60", [85, 170]), (4, b"\x2f", [34, 255])]
)
def test_few_bits_are_spread_over_all_levels(depth: int, row: bytes, levels: list[int]) -> None:
    tensor = preprocess(png(2, depth, 0, row), PreprocessingSpec(height=1, width=2, colour="grey"))
    assert tensor[0, :, 0].tolist() == levels


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x40"), (4, b"\x01"), (8, b"\x00\x01")])
def test_palette_png_has_the_colours_of_its_palette(depth: int, row: bytes) -> None:
    data = png(2, depth, 3, row, before=chunk(b"PLTE", bytes([*RED, 1, 2, 3])))
    tensor = preprocess(data, PreprocessingSpec(height=1, width=2, colour="rgb"))
    assert tensor[0].tolist() == [list(RED), [1, 2, 3]]


@pytest.mark.parametrize(
    ("dtype", "sample_format", "what"),
    [
        (np.float32, 3, "floating-point pixels"),
        (np.float64, 3, "floating-point pixels"),
        (np.int16, 2, "signed pixels"),
        (np.uint32, 1, "32-bit pixels"),
    ],
)
def test_numbers_that_are_no_levels_are_rejected_by_name(
    dtype: type[np.generic], sample_format: int, what: str
) -> None:
    data = tiff(np.zeros((4, 4), dtype), sample_format=sample_format)
    with pytest.raises(UnsupportedLayout, match=f"A TIFF with {what} is not supported. Save it as 8-bit RGB or grey."):
        preprocess(data, PreprocessingSpec(height=4, width=4, colour="grey"))


# Colour


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("colour", "luma"), [(RED, 76), (GREEN, 150), (BLUE, 29), ((255, 255, 255), 255), ((0, 0, 0), 0)]
)
def test_colours_keep_their_channels_and_become_their_luma(
    encoding: str, colour: tuple[int, int, int], luma: int
) -> None:
    suffix, parameters, allowed = ENCODINGS[encoding]
    data = encode(plain(*colour), suffix, parameters)
    rgb = preprocess(data, PreprocessingSpec(height=16, width=16, colour="rgb"))
    np.testing.assert_allclose(rgb, plain(*colour), atol=allowed)
    grey = preprocess(data, PreprocessingSpec(height=16, width=16, colour="grey"))
    np.testing.assert_allclose(grey, plain(luma), atol=allowed)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "gif"])  # OpenCV writes no grey GIF
def test_grey_pictures_have_equal_channels_in_rgb(encoding: str) -> None:
    suffix, parameters, allowed = ENCODINGS[encoding]
    data = encode(UPRIGHT, suffix, parameters)
    grey, rgb = preprocess(data, spec_of(UPRIGHT, "grey")), preprocess(data, spec_of(UPRIGHT, "rgb"))
    np.testing.assert_allclose(grey[..., 0], UPRIGHT, atol=2 * allowed)
    for channel in np.moveaxis(rgb, 2, 0):
        np.testing.assert_allclose(channel, UPRIGHT, atol=2 * allowed)


@pytest.mark.parametrize("encoding", [name for name, (_, _, allowed) in ENCODINGS.items() if not allowed])
def test_luma_is_that_of_bt_601(encoding: str) -> None:
    suffix, parameters, _ = ENCODINGS[encoding]
    picture = np.random.default_rng(0).integers(0, 4, (16, 12, 3), np.uint8) * 85
    tensor = preprocess(encode(picture, suffix, parameters), spec_of(picture, "grey"))
    np.testing.assert_allclose(tensor[..., 0], picture @ np.array([0.299, 0.587, 0.114]), atol=0.51)


# Size


def random_picture(height: int, width: int, colour: Colour) -> Image:
    shape = (height, width) if colour == "grey" else (height, width, 3)
    return np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)


def block_means(picture: Image, rows: int, columns: int) -> NDArray[np.float64]:
    """Return the means of blocks of rows × columns: what averaging over areas means for an integral factor."""
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    means: NDArray[np.float64] = picture.reshape(height, rows, width, columns, -1).mean(axis=(1, 3))
    return means


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_picture_of_the_right_size_is_untouched(resize: Resize, colour: Colour) -> None:
    picture = random_picture(7, 5, colour)
    tensor = prepare(picture, spec_of(picture, colour, resize=resize))
    np.testing.assert_array_equal(tensor, picture.reshape(tensor.shape))


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 3), (4, 2), (5, 1), (1, 7)])
def test_shrinking_by_an_integral_factor_averages_blocks(rows: int, columns: int, colour: Colour) -> None:
    picture = random_picture(6 * rows, 5 * columns, colour)
    tensor = prepare(picture, PreprocessingSpec(height=6, width=5, colour=colour))
    np.testing.assert_allclose(tensor, block_means(picture, rows, columns), atol=0.51)


def test_shrinking_by_a_broken_factor_averages_with_parts_of_pixels() -> None:
    picture = random_picture(15, 10, "grey")
    tensor = prepare(picture, PreprocessingSpec(height=6, width=4, colour="grey"))
    fine = np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)  # 2.5 pixels are 5 halves
    np.testing.assert_allclose(tensor, block_means(fine, 5, 5), atol=0.51)


def linear(picture: Image, height: int, width: int) -> NDArray[np.float64]:
    """Interpolate linearly between the centres of pixels, with the edge repeated."""
    levels = picture.reshape(*picture.shape[:2], -1).astype(np.float64)
    for axis, size in enumerate((height, width)):
        known = levels.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * known / size - 0.5, 0, known - 1)
        low = np.floor(position).astype(int)
        shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        part = (position - low).reshape(shape)
        high = np.minimum(low + 1, known - 1)
        levels = levels.take(low, axis) * (1 - part) + levels.take(high, axis) * part
    return levels


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize(
    ("interpolation", "height", "width"),
    [("area", 13, 11), ("area", 3, 11), ("linear", 13, 11), ("linear", 4, 3), ("linear", 3, 11)],
)
def test_growing_and_linear_interpolate_between_pixels(
    interpolation: Interpolation, height: int, width: int, colour: Colour
) -> None:
    picture = random_picture(6, 5, colour)
    spec = PreprocessingSpec(height=height, width=width, colour=colour, interpolation=interpolation)
    np.testing.assert_allclose(prepare(picture, spec), linear(picture, height, width), atol=1.5)


def test_padding_keeps_the_whole_picture_centred_on_the_background() -> None:
    picture = random_picture(8, 4, "rgb")
    spec = PreprocessingSpec(height=4, width=7, colour="rgb", resize="pad", background=(1, 2, 3))
    tensor = prepare(picture, spec)
    np.testing.assert_allclose(tensor[:, 2:4], block_means(picture, 2, 2), atol=0.51)
    beside = np.delete(tensor, [2, 3], axis=1)
    np.testing.assert_array_equal(beside, np.broadcast_to((1, 2, 3), (4, 5, 3)))


def test_padding_a_wide_picture_adds_rows() -> None:
    picture = random_picture(4, 12, "grey")
    tensor = prepare(picture, PreprocessingSpec(height=6, width=6, colour="grey", resize="pad"))
    np.testing.assert_allclose(tensor[2:4], block_means(picture, 2, 2), atol=0.51)
    assert (np.delete(tensor, [2, 3], axis=0) == 255).all()


def test_padding_of_grey_pictures_is_the_luma_of_the_background() -> None:
    spec = PreprocessingSpec(height=2, width=4, colour="grey", resize="pad", background=RED)
    assert prepare(np.full((2, 2), 9, np.uint8), spec)[..., 0].tolist() == [[76, 9, 9, 76]] * 2


def test_cropping_keeps_the_centre() -> None:
    tall, wide = random_picture(10, 4, "rgb"), random_picture(4, 10, "rgb")
    spec = PreprocessingSpec(height=2, width=2, colour="rgb", resize="crop")
    np.testing.assert_allclose(prepare(tall, spec), block_means(tall[3:7], 2, 2), atol=0.51)
    np.testing.assert_allclose(prepare(wide, spec), block_means(wide[:, 3:7], 2, 2), atol=0.51)


def test_cropping_to_another_ratio_cuts_the_longer_side_only() -> None:
    picture = random_picture(12, 12, "grey")
    tensor = prepare(picture, PreprocessingSpec(height=2, width=4, colour="grey", resize="crop"))
    np.testing.assert_allclose(tensor, block_means(picture[3:9], 3, 3), atol=0.51)


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize(("height", "width"), [(1, 2000), (2000, 1), (1, 1), (2, 3)])
def test_extreme_ratios_have_the_shape_and_levels_of_the_picture(
    height: int, width: int, interpolation: Interpolation, resize: Resize, colour: Colour
) -> None:
    picture = np.full((height, width) if colour == "grey" else (height, width, 3), 90, np.uint8)
    spec = PreprocessingSpec(
        height=28, width=20, colour=colour, resize=resize, interpolation=interpolation, background=(7, 7, 7)
    )
    tensor = preprocess(encode(picture), spec)
    assert tensor.shape == spec.shape
    assert set(np.unique(tensor)) <= ({7, 90} if resize == "pad" else {90})
    assert 90 in tensor


# Polarity

DARK_ON_LIGHT = np.full((8, 4), 240, np.uint8)
DARK_ON_LIGHT[2:6, 1:3] = 20


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_picture_and_its_inverse_give_the_same_tensor(resize: Resize, colour: Colour) -> None:
    spec = PreprocessingSpec(height=8, width=8, colour=colour, resize=resize, polarity="light_on_dark")
    light = preprocess(encode(DARK_ON_LIGHT), spec)
    np.testing.assert_array_equal(light, preprocess(encode(~DARK_ON_LIGHT), spec))
    assert light[4, 4].min() > 200


def test_picture_that_is_light_on_dark_stays_as_it_is() -> None:
    spec = spec_of(DARK_ON_LIGHT, "grey", polarity="light_on_dark")
    np.testing.assert_array_equal(prepare(~DARK_ON_LIGHT, spec)[..., 0], ~DARK_ON_LIGHT)


def test_polarity_is_left_alone_unless_asked_for() -> None:
    np.testing.assert_array_equal(prepare(DARK_ON_LIGHT, spec_of(DARK_ON_LIGHT, "grey"))[..., 0], DARK_ON_LIGHT)


@pytest.mark.parametrize("picture", [DARK_ON_LIGHT, ~DARK_ON_LIGHT], ids=["dark on light", "light on dark"])
def test_padding_is_black_where_pictures_are_made_light_on_dark(picture: Image) -> None:
    spec = PreprocessingSpec(height=8, width=8, colour="grey", resize="pad", polarity="light_on_dark")
    tensor = prepare(picture, spec)[..., 0]
    assert (tensor[:, :2] == 0).all()
    assert (tensor[:, 6:] == 0).all()
    np.testing.assert_array_equal(tensor[:, 2:6], ~DARK_ON_LIGHT)


@pytest.mark.parametrize(("level", "inverted"), [(127, 127), (128, 127)])
def test_border_is_light_from_the_middle_on(level: int, inverted: int) -> None:
    picture = np.full((1, 1), level, np.uint8)
    assert prepare(picture, spec_of(picture, "grey", polarity="light_on_dark")).item() == inverted


# Framing


FRAMED: dict[str, Any] = {
    "version": 2,
    "height": 28,
    "width": 28,
    "colour": "grey",
    "polarity": "light_on_dark",
    "resize": "pad",
    "framing": "mass",
}


def sheet(height: int, width: int, strokes: Sequence[tuple[tuple[int, int], tuple[int, int]]], pen: int) -> Image:
    """Return lines from point to point, x first, in black on white."""
    paper = np.full((height, width), 255, np.uint8)
    for start, end in strokes:
        cv2.line(paper, start, end, 0, pen, cv2.LINE_AA)
    return paper


def seven(size: int, left: int, top: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    right, bottom = left + size * 3 // 5, top + size
    return [((left, top), (right, top)), ((right, top), (left + size // 5, bottom))]


@pytest.mark.parametrize("ground", [255, 190])
@pytest.mark.parametrize(("size", "left", "top"), [(60, 10, 10), (60, 200, 150), (120, 90, 80), (220, 40, 30)])
def test_what_is_drawn_looks_alike_wherever_and_however_large_it_was_drawn(
    size: int, left: int, top: int, ground: int
) -> None:
    spec = PreprocessingSpec(**FRAMED)
    expected = prepare(sheet(280, 280, seven(160, 60, 60), 16), spec).astype(int)
    drawn = np.minimum(sheet(280, 280, seven(size, left, top), size // 10), ground)
    found = prepare(drawn, spec).astype(int)
    assert found.max() == 255
    shifts = [np.roll(found, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert min(np.abs(shifted - expected).mean() for shifted in shifts) < 8


def test_what_is_drawn_fits_into_twenty_pixels_around_its_centre_of_mass() -> None:
    tensor = prepare(sheet(280, 280, seven(60, 200, 20), 8), PreprocessingSpec(**FRAMED))[..., 0]
    rows, columns = np.nonzero(tensor > 64)
    assert np.ptp(rows) + 1 in (19, 20, 21)
    assert np.ptp(columns) + 1 <= 20
    for places in np.indices(tensor.shape):
        assert abs(np.average(places, weights=tensor) - 14) <= 0.5


def test_digits_of_mnist_stay_as_they_are(repository: Path) -> None:
    golden = open_bundle(repository / "model_store" / "mnist" / "1").golden
    spec = PreprocessingSpec(**FRAMED)
    for encoded, expected in zip(golden.encoded, golden.images, strict=True):
        np.testing.assert_allclose(preprocess(encoded, spec).astype(int), expected, atol=2)


@pytest.mark.parametrize("picture", [
    np.zeros((280, 280), np.uint8),
    np.full((1, 1), 255, np.uint8),
    np.full((30, 50), 100, np.uint8),
], ids=["black", "one white pixel", "grey"])  # fmt: skip
def test_a_picture_on_which_nothing_is_drawn_is_brought_to_size_as_any_other(picture: Image) -> None:
    plain = PreprocessingSpec(**{**FRAMED, "framing": "none"})
    np.testing.assert_array_equal(prepare(picture, PreprocessingSpec(**FRAMED)), prepare(picture, plain))


@pytest.mark.parametrize("strokes", [
    [((0, 140), (279, 140))],
    [((140, 0), (140, 279))],
    [((5, 5), (5, 5))],
    [((0, 0), (279, 279)), ((279, 0), (0, 279))],
], ids=["across", "down", "a dot", "to all edges"])  # fmt: skip
def test_anything_drawn_lies_inside(strokes: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    tensor = prepare(sheet(280, 280, strokes, 3), PreprocessingSpec(**FRAMED))
    assert tensor.shape == (28, 28, 1)
    assert tensor.max() > 60


@pytest.mark.parametrize(("changes", "reason"), [
    ({"version": 1}, "version 1 has no framing"),
    ({"colour": "rgb"}, "framing takes grey pictures that are light_on_dark"),
    ({"polarity": "as_is"}, "framing takes grey pictures that are light_on_dark"),
])  # fmt: skip
def test_framing_is_for_grey_pictures_that_are_light_on_dark(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        PreprocessingSpec(**{**FRAMED, **changes})
    assert "framing" not in PreprocessingSpec(height=8, width=8, colour="grey").model_dump()


# Damage


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_picture_that_is_cut_off_is_undecodable(encoding: str, colour: Colour) -> None:
    suffix, parameters, _ = ENCODINGS[encoding]
    data = encode(random_picture(24, 32, "rgb"), suffix, parameters)
    for kept in np.linspace(0.1, 0.98, 12):
        with pytest.raises(UndecodableImage):
            preprocess(data[: int(len(data) * kept)], PreprocessingSpec(height=8, width=8, colour=colour))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_picture_that_lacks_its_last_bytes_is_whole_or_undecodable(encoding: str) -> None:
    """Baseline JPEG of a certain length and GIF can do without their end marker; all other formats cannot."""
    suffix, parameters, _ = ENCODINGS[encoding]
    for size in (24, 80):
        data = encode(random_picture(size, size, "rgb"), suffix, parameters)
        spec = PreprocessingSpec(height=8, width=8, colour="rgb")
        whole = preprocess(data, spec)
        for missing in range(1, 20):
            try:
                tensor = preprocess(data[:-missing], spec)
            except UndecodableImage:
                continue
            assert encoding in ("jpeg", "gif")
            np.testing.assert_array_equal(tensor, whole)


def test_png_with_a_wrong_checksum_is_undecodable() -> None:
    data = bytearray(encode(random_picture(16, 16, "rgb")))
    data[len(data) // 2] ^= 1
    with pytest.raises(UndecodableImage, match="begins like PNG but cannot be decoded: it is damaged or cut off"):
        preprocess(bytes(data), PreprocessingSpec(height=8, width=8, colour="grey"))


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"fdAT"])
@pytest.mark.parametrize("claimed", [5000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_png_chunk_that_claims_more_than_the_file_has_never_reaches_the_decoder(
    monkeypatch: pytest.MonkeyPatch, claimed: int, kind: bytes
) -> None:
    """OpenCV allocates what a chunk claims: up to 4 GB, and eleven seconds, for 100 bytes."""
    data = encode(random_picture(8, 8, "rgb"))
    monkeypatch.delattr(cv2, "imdecodeWithMetadata")
    with pytest.raises(UndecodableImage):
        preprocess(
            data[:33] + struct.pack(">I", claimed) + kind + data[33:],
            PreprocessingSpec(height=8, width=8, colour="grey"),
        )


def test_png_whose_very_end_claims_more_than_the_file_has_never_reaches_the_decoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by fuzzing: IEND, of all chunks, was let through, and cost 4 GB and five seconds."""
    data = encode(random_picture(8, 8, "rgb"))[:-12] + b"\xfe\x00\x00\x00IEND\xaeB`\x82"
    monkeypatch.delattr(cv2, "imdecode")
    with pytest.raises(UndecodableImage):
        preprocess(data, PreprocessingSpec(height=8, width=8, colour="grey"))


def test_bytes_after_the_end_of_a_png_do_not_matter() -> None:
    picture = random_picture(8, 8, "rgb")
    tensor = preprocess(encode(picture) + b"\xff" * 50, spec_of(picture, "rgb"))
    np.testing.assert_array_equal(tensor, picture)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(st.data())
def test_damaged_picture_has_the_full_shape_or_is_an_image_error(encoding: str, data: st.DataObject) -> None:
    suffix, parameters, _ = ENCODINGS[encoding]
    damaged = bytearray(encode(random_picture(16, 20, "rgb"), suffix, parameters))
    places = st.integers(64, len(damaged) - 1)  # behind the size: see test_header.py
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4)):
        damaged[place] = value
    spec = PreprocessingSpec(height=8, width=8, colour="grey")
    try:
        tensor = preprocess(bytes(damaged), spec)
    except ImageError:
        return
    assert tensor.shape == spec.shape


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"no picture"])
def test_what_is_no_picture_is_refused_before_it_is_decoded(data: bytes) -> None:
    with pytest.raises((UnsupportedFormat, UndecodableImage)):
        preprocess(data, PreprocessingSpec(height=8, width=8, colour="grey"))


@pytest.mark.parametrize("signature", [b"\xff\xd8\xff\xc0\0\x0b\x08\0\x05\0\x05", b"GIF89a\x05\0\x05\0", b"BM"])
def test_header_without_pixels_is_undecodable(signature: bytes) -> None:
    data = signature + bytes(12) + struct.pack("<Iii", 40, 5, 5) + bytes(40) if signature == b"BM" else signature
    with pytest.raises(UndecodableImage, match="damaged or cut off"):
        preprocess(data, PreprocessingSpec(height=8, width=8, colour="grey"))


# The spec


@given(st.data())
def test_every_picture_and_spec_give_a_tensor_of_the_spec(data: st.DataObject) -> None:
    side = st.integers(1, 40)
    spec = PreprocessingSpec(
        height=data.draw(side),
        width=data.draw(side),
        colour=data.draw(st.sampled_from(["grey", "rgb"])),
        background=data.draw(st.tuples(*[st.integers(0, 255)] * 3)),
        resize=data.draw(st.sampled_from(["stretch", "pad", "crop"])),
        interpolation=data.draw(st.sampled_from(["area", "linear"])),
        polarity=data.draw(st.sampled_from(["as_is", "light_on_dark"])),
    )
    picture = random_picture(data.draw(side), data.draw(side), data.draw(st.sampled_from(["grey", "rgb"])))
    before = picture.copy()
    tensor = prepare(picture, spec)
    assert (tensor.shape, str(tensor.dtype)) == (spec.shape, "uint8")
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(preprocess(encode(picture), spec), tensor)


def test_pixels_that_are_not_contiguous_are_taken() -> None:
    picture = random_picture(12, 9, "rgb")
    for view in (picture[::-1, ::2], picture.swapaxes(0, 1), picture[..., ::-1]):
        tensor = prepare(view, spec_of(view, "rgb"))
        assert tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, view)


def test_spec_is_frozen_and_compares_by_value() -> None:
    spec = PreprocessingSpec(height=2, width=3, colour="rgb")
    with pytest.raises(ValidationError, match="frozen"):
        spec.height = 4  # type: ignore[misc]
    assert spec == PreprocessingSpec.model_validate_json(spec.model_dump_json())
    assert spec.shape == (2, 3, 3)
    assert PreprocessingSpec(height=2, width=3, colour="grey").shape == (2, 3, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"sharpen": True},
        {"height": 0},
        {"width": 4097},
        {"colour": "bgr"},
        {"background": (0, 0, 256)},
        {"background": (0, 0)},
        {"resize": "squash"},
        {"interpolation": "cubic"},
        {"polarity": "dark_on_light"},
    ],
    ids=str,
)
def test_spec_refuses_what_it_does_not_know(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreprocessingSpec.model_validate({"height": 2, "width": 3, "colour": "grey", **change})


def test_contract_loads_neither_a_web_framework_nor_an_engine(repository: Path) -> None:
    script = (
        "import sys, app.contract.bundle, app.contract.header, app.contract.preprocessing, app.contract.store; "
        "print(sorted({'fastapi', 'starlette', 'uvicorn', 'tensorflow', 'keras', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("way", ["stretch", "pad", "crop", "mass"])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (28, 28), (400, 300)])
def test_the_seen_part_says_where_a_place_of_the_tensor_lies_in_the_picture(way: Any, height: int, width: int) -> None:
    picture = np.zeros((height, width), np.uint8)
    side = height // 7
    top, left = height // 2, width // 2 - side
    picture[top : top + side, left : left + side] = 255
    picture[top + side : top + 2 * side, left + side : left + 2 * side] = 120  # so that the bright part is off-centre
    framed = {"version": 2, "framing": "mass", "polarity": "light_on_dark"}
    options = framed if way == "mass" else {"resize": way, "background": (0, 0, 0)}
    spec = PreprocessingSpec(height=28, width=28, colour="grey", **options)
    box = seen_part(picture, spec)
    rows, columns = np.nonzero(prepare(picture, spec)[..., 0] > 200)
    middle = (
        (box.top + box.height * (rows.mean() + 0.5) / 28) * height,
        (box.left + box.width * (columns.mean() + 0.5) / 28) * width,
    )
    assert middle == pytest.approx((top + side / 2, left + side / 2), abs=max(height, width) / 28)
