"""Every kind of picture is accepted up to 64 megapixels, or up to what decoding it may take."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from app.contract import limits
from app.contract.header import ImageFormat, ImageHeader, read_header
from app.contract.limits import MAX_BYTES, MAX_PIXELS, check_size, why_too_large
from app.errors import ImageTooLarge
from tests.oddities import chunk, pillow, png
from tests.oddities import segment as jpeg_segment

PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
FULL_COLOURS = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
HEIC = Path(__file__).parents[1] / "data" / "heif" / "colours.heic"
FIELDS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def jpeg(*flags: int) -> bytes:
    return cv2.imencode(".jpg", FIELDS, flags)[1].tobytes()


def webp(pixels: int) -> bytes:
    picture = np.full((8, 8, pixels), 7, np.uint8)
    return cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()


def in_scans_of_one_component(data: bytes) -> bytes:
    """Return the head of a baseline JPEG whose first scan has the first component alone."""
    at = data.index(b"\xff\xda")
    return data[:at] + jpeg_segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\0\xff\xd9"


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (jpeg(), 64e6),
        (jpeg(*PROGRESSIVE), 64e6),
        (jpeg(*FULL_COLOURS), 64e6),
        (jpeg(*PROGRESSIVE, *FULL_COLOURS), 400e6 / 9),
        (in_scans_of_one_component(jpeg(*FULL_COLOURS)), 400e6 / 9),
        (pillow(kind="JPEG", progressive=True), 64e6),
        (png(16, 16, 8, 0, b"\0" * 272), 64e6),
        (png(16, 16, 8, 2, b"\0" * 784), 64e6),
        (png(16, 16, 8, 2, b"\0" * 784, chunk(b"tRNS", bytes(6))), 40e6),
        (png(16, 16, 8, 6, b"\0" * 1040), 40e6),
        (png(16, 16, 16, 6, b"\0" * 2064), 25e6),
        (webp(3), 64e6),
        (webp(4), 40e6),
        (pillow(kind="BMP"), 400e6 / 14),
        (pillow(kind="GIF"), 400e6 / 12),
        (pillow(kind="TIFF"), 25e6),
        (pillow(Pillow.new("CMYK", (16, 16)), kind="TIFF"), 400e6 / 28),
        (pillow(Pillow.new("RGB", (16, 16)), kind="AVIF"), 400e6 / 12),
        (pillow(Pillow.new("RGBA", (16, 16), (1, 2, 3, 4)), kind="AVIF"), 25e6),
        (HEIC.read_bytes(), 50e6),
    ],
)
def test_the_largest_picture_of_each_kind_is_accepted_and_one_row_more_is_not(data: bytes, most: float) -> None:
    kind = read_header(data).format
    rows = int(most / 8000)
    check_size(data, ImageHeader(kind, 8000, rows))
    with pytest.raises(ImageTooLarge, match=rf"8000x{rows + 1} pixels.* (S|s)end it smaller"):
        check_size(data, ImageHeader(kind, 8000, rows + 1))


def test_a_kind_that_takes_more_memory_is_named_with_what_it_takes() -> None:
    with pytest.raises(
        ImageTooLarge,
        match=r"This PNG of 8000x8000 pixels takes 1,024 MB to decode; at most 400 MB are accepted. "
        "Save it as baseline JPEG, or send it smaller",
    ):
        check_size(png(16, 16, 16, 6, b""), ImageHeader("png", 8000, 8000))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_lower_limit_counts_pixels_alone_and_a_higher_one_memory_too(kind: ImageFormat) -> None:
    data = {"jpeg": jpeg(), "png": png(16, 16, 16, 6, b"")}.get(kind, webp(4))
    check_size(data, ImageHeader(kind, 5000, 5000), max_pixels=25_000_000)
    with pytest.raises(ImageTooLarge, match="at most 24,999,999 are accepted"):
        check_size(data, ImageHeader(kind, 5000, 5000), max_pixels=24_999_999)
    check_size(data, ImageHeader(kind, 10_000, 10_000), max_pixels=270_000_000)


@pytest.mark.parametrize("end", range(2, 200, 7))
def test_a_jpeg_that_is_cut_off_in_its_head_has_a_size_or_none(end: int) -> None:
    check_size(jpeg(*PROGRESSIVE)[:end] + b"\xff", ImageHeader("jpeg", 8000, 5000))


def test_a_thumbnail_in_a_jpeg_says_nothing_of_its_scans() -> None:
    thumbnail = jpeg_segment(0xE1, jpeg(*PROGRESSIVE, *FULL_COLOURS))
    data = jpeg()
    check_size(data[:2] + thumbnail + data[2:], ImageHeader("jpeg", 8000, 8000))


def test_what_is_too_large_by_default_is_told_with_its_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg()
    assert why_too_large(data, read_header(data)) is None
    why = why_too_large(data, ImageHeader("jpeg", 8001, 8000))
    assert why == f"The picture has 8001x8000 pixels; at most {MAX_PIXELS:,} are accepted. Send it smaller."
    monkeypatch.setattr(limits, "MAX_BYTES", len(data) - 1)
    why = why_too_large(data, read_header(data))
    assert why == f"The file has {len(data):,} bytes; at most {len(data) - 1:,} are accepted. Send it smaller."
    assert MAX_BYTES == 32 * 1024 * 1024
