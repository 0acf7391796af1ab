"""The format and size of a picture, read from its first bytes."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.contract.header import IMAGE_FORMATS, ImageFormat, ImageHeader, read_header
from app.contract.preprocessing import PreprocessingSpec, decode, preprocess
from app.errors import ImageError, UndecodableImage, UnsupportedFormat, UnsupportedLayout

HEIF = Path(__file__).parents[1] / "data" / "heif"
SUFFIXES: dict[ImageFormat, str] = {
    "jpeg": ".jpg",
    "png": ".png",
    "webp": ".webp",
    "bmp": ".bmp",
    "gif": ".gif",
    "tiff": ".tiff",
    "avif": ".avif",
}
"""HEIC is not among them: OpenCV does not write it."""
WIDTH, HEIGHT = 300, 7  # neither fits into the other's place, and the width needs two bytes
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
NO_PARAMETERS: list[int] = []


def encoded(suffix: str, parameters: list[int] = NO_PARAMETERS) -> bytes:
    return cv2.imencode(suffix, COLOURS, parameters)[1].tobytes()


def bmp(width: int, height: int, *, header_size: int = 40) -> bytes:
    size = struct.pack("<HH" if header_size == 12 else "<ii", width, height)
    return b"BM" + bytes(12) + struct.pack("<I", header_size) + size


def gif(width: int, height: int, version: bytes = b"GIF89a") -> bytes:
    return version + struct.pack("<HH", width, height)


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def webp(chunk: bytes, payload: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(payload) + 12) + b"WEBP" + chunk + struct.pack("<I", len(payload)) + payload


def vp8(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", width, height))


def vp8l(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (height - 1) << 14 | (width - 1)))


def vp8x(width: int, height: int) -> bytes:
    return webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def jpeg(width: int, height: int, *, before: bytes = b"", marker: int = 0xC0) -> bytes:
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + before + frame


def tiff(tags: list[tuple[int, int, int]], order: str = "<") -> bytes:
    """Return a directory of (tag, type, value); a short value lies in the first bytes of its field."""
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + {1: "Bxxx", 3: "Hxx"}.get(kind, "I"), value)
        for tag, kind, value in tags
    )
    start = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 10) + b"\xee\xee"
    return start + struct.pack(order + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("image_format", SUFFIXES)
def test_every_accepted_format_is_recognised_with_its_size(image_format: ImageFormat) -> None:
    assert read_header(encoded(SUFFIXES[image_format])) == ImageHeader(image_format, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("suffix", "parameters"),
    [
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 50]),
        (".tiff", [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE]),
    ],
    ids=["progressive", "restart markers", "lossless WebP", "lossy WebP", "plain TIFF"],
)
def test_size_does_not_depend_on_the_encoding(suffix: str, parameters: list[int]) -> None:
    header = read_header(encoded(suffix, parameters))
    assert (header.width, header.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("data", "image_format"),
    [
        (vp8(WIDTH, HEIGHT), "webp"),
        (vp8(WIDTH | 0x4000, HEIGHT | 0x8000), "webp"),
        (vp8l(WIDTH, HEIGHT), "webp"),
        (vp8x(WIDTH, HEIGHT), "webp"),
        (bmp(WIDTH, HEIGHT), "bmp"),
        (bmp(WIDTH, -HEIGHT), "bmp"),
        (bmp(WIDTH, HEIGHT, header_size=12), "bmp"),
        (bmp(WIDTH, HEIGHT, header_size=124), "bmp"),
        (gif(WIDTH, HEIGHT, b"GIF87a"), "gif"),
        (gif(WIDTH, HEIGHT), "gif"),
        (png(WIDTH, HEIGHT), "png"),
        (tiff([(256, 3, WIDTH), (257, 3, HEIGHT)], "<"), "tiff"),
        (tiff([(256, 3, WIDTH), (257, 3, HEIGHT)], ">"), "tiff"),
        (tiff([(254, 4, 0), (256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, 8)], "<"), "tiff"),
        (tiff([(254, 4, 0), (256, 4, WIDTH), (257, 4, HEIGHT), (258, 3, 8)], ">"), "tiff"),
        (jpeg(WIDTH, HEIGHT, marker=0xC2), "jpeg"),
        (jpeg(WIDTH, HEIGHT, before=b"\xff" * 9), "jpeg"),
        (jpeg(WIDTH, HEIGHT, before=b"\xff\xe1\xff\xff" + b"\xff\xc0\x00\x11\x08\x00\x01" * 9362), "jpeg"),
        (jpeg(WIDTH, HEIGHT, before=b"\xff\xc4\x00\x05abc\xff\x01\xff\xd0\xff\xfe\x00\x02"), "jpeg"),
        (jpeg(WIDTH, HEIGHT, before=b"stray\xff\x00stray"), "jpeg"),
    ],
    ids=[
        "VP8",
        "VP8 with scaling bits",
        "VP8L",
        "VP8X",
        "Windows BMP",
        "BMP from the top",
        "OS/2 BMP",
        "BMP version 5",
        "GIF87a",
        "GIF89a",
        "PNG",
        "little-endian TIFF",
        "big-endian TIFF",
        "little-endian TIFF of longs",
        "big-endian TIFF of longs",
        "progressive JPEG",
        "JPEG with fill bytes",
        "JPEG whose big APP segment looks like frames",
        "JPEG with tables and markers without length",
        "JPEG with stray bytes",
    ],
)
def test_size_is_read_from_the_header_alone(data: bytes, image_format: ImageFormat) -> None:
    assert read_header(data) == ImageHeader(image_format, WIDTH, HEIGHT)


def test_pixels_are_width_times_height() -> None:
    assert read_header(png(20_000, 30_000)).pixels == 600_000_000


def test_fill_bytes_and_a_big_segment_are_skipped_as_the_decoder_skips_them() -> None:
    plain = encoded(".jpg")
    data = plain[:2] + b"\xff\xff\xff\xee\xff\xff" + bytes(65533) + b"\xff" * 5 + plain[2:]
    assert read_header(data) == ImageHeader("jpeg", WIDTH, HEIGHT)
    spec = PreprocessingSpec(height=HEIGHT, width=WIDTH, colour="rgb")
    np.testing.assert_array_equal(preprocess(data, spec), preprocess(plain, spec))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x00\x00\x00\x18ftypmif1", "HEIF"),
        (b"\x00\x00\x00\x18ftypisom", "a video"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=", "SVG"),
        (b"\xef\xbb\xbf  \r\n<svg>", "SVG"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<!DOCTYPE svg PUBLIC "a" "b">\n<svg>', "SVG"),
        (b"<!-- a --><!-- b --><svg:svg>", "SVG"),
        (b'<!DOCTYPE svg [<!ENTITY a "b">]><svg>', "SVG"),
        ("<?xml version='1.0' encoding='utf-16'?><svg>".encode("utf-16"), "SVG"),
        (b"<!doctype html><title>", "HTML"),
        (b"\n<html lang=en>", "HTML"),
        (b"\x00\x00\x00\x18ftypmsf1", "HEIF"),
        (b"\x00\x00\x00\x14ftypqt  ", "a video"),
        (b"\x1a\x45\xdf\xa3\x01", "a video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "a video"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "sound"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"P6\n48 32\n255\n", "PNM"),
        (b"\x00" * 128 + b"DICM", "DICOM"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\x93NUMPY\x01", "a NumPy array"),
        (b"\x7fELF\x02", "a program"),
        (b"/9j/4AAQSkZJRg", "Base64 text, not the bytes that it stands for"),
        (b"iVBORw0KGgoAAAANSUhEUgAA", "Base64 text, not the bytes that it stands for"),
        (b"data:image/png;base64,iVBO", "a data URL, not the bytes that it stands for"),
        (b"https://example.com/7.png", "a URL, not a picture"),
        (b'<?xml version="1.0"?>', "XML or SVG"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\x00", "JPEG 2000"),
        (b"\xff\x0a\x00", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\x00\x00\x01\x00\x01\x00", "ICO"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"II\x2b\x00\x08\x00", "BigTIFF"),
        (b"MM\x00\x2b\x00\x08", "BigTIFF"),
        (b"PK\x03\x04\x14", "a ZIP archive"),
    ],
)
def test_other_formats_are_named_with_what_to_send_instead(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"^This is {name}; send JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"):
        read_header(data)


@pytest.mark.parametrize("data", [b"hello", b"\x00", b"\xff", b"RIFF\x00\x00\x00\x00ABCDfmt ", b"GIF88a", b"\x89PNG"])
def test_bytes_of_no_known_format_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="not a picture in a known format; send JPEG"):
        read_header(data)


@pytest.mark.parametrize(
    "text", [b"<", b"<!", b"<?", b"<!--" * 1000, b"<!doctype[[[[[" * 300, b"<?xml" * 800, b"<svgs>"]
)
def test_broken_markup_is_unsupported_too(text: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        read_header(text)


def test_formats_that_are_not_accepted_here_are_named_beside_those_that_are() -> None:
    accepted = frozenset({"jpeg", "webp"})
    assert read_header(encoded(".jpg"), accepted=accepted).format == "jpeg"
    with pytest.raises(UnsupportedFormat, match=r"^This is PNG; send JPEG or WebP\.$"):
        read_header(encoded(".png"), accepted=accepted)
    with pytest.raises(UnsupportedFormat, match=r"^This is BMP; send PNG\.$"):
        read_header(encoded(".bmp"), accepted=frozenset({"png"}))
    with pytest.raises(UnsupportedFormat, match=r"not a picture in a known format; send PNG\.$"):
        read_header(b"hello", accepted=frozenset({"png"}))


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC7, 0xCB, 0xCF])
def test_a_lossless_or_hierarchical_jpeg_is_told_how_to_be_saved(marker: int) -> None:
    with pytest.raises(UnsupportedLayout, match="lossless or hierarchical; save it as baseline JPEG"):
        read_header(jpeg(5, 5, marker=marker))


def test_a_jpeg_of_12_bits_is_told_how_to_be_saved() -> None:
    with pytest.raises(UnsupportedLayout, match="has 12 bits per sample; save it with 8"):
        read_header(jpeg(5, 5).replace(b"\x00\x0b\x08", b"\x00\x0b\x0c"))


def test_empty_upload_is_said_to_be_empty() -> None:
    with pytest.raises(UndecodableImage, match="empty"):
        read_header(b"")


@pytest.mark.parametrize(
    "data",
    [
        png(0, 5),
        png(5, 0),
        gif(0, 5),
        gif(5, 0),
        bmp(0, 5),
        bmp(5, 0),
        bmp(-5, 5),
        bmp(0, 5, header_size=12),
        vp8(0, 5),
        vp8(5, 0),
        jpeg(0, 5),
        jpeg(5, 0),
        tiff([(256, 3, 0), (257, 3, 5)]),
        tiff([(256, 3, 5)]),
        tiff([(257, 3, 5)]),
    ],
)
def test_size_without_pixels_is_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableImage, match=r"declares a size of -?\d+x\d+ pixels"):
        read_header(data)


def test_jpeg_that_ends_before_its_frame_is_undecodable() -> None:
    for marker in (0xD9, 0xDA):
        with pytest.raises(UndecodableImage, match="cut off inside its header"):
            read_header(b"\xff\xd8" + bytes([0xFF, marker]) + jpeg(5, 5)[2:])


def test_webp_that_begins_with_another_chunk_is_undecodable() -> None:
    with pytest.raises(UndecodableImage, match="cut off inside its header"):
        read_header(webp(b"EXIF", bytes(20)))


# libtiff takes the first of two equal tags, and lets a size be a byte or lie elsewhere as a 64-bit number.


def test_tiff_with_two_widths_has_the_first_as_the_decoder_has_it() -> None:
    assert read_header(tiff([(256, 3, WIDTH), (256, 3, 1), (257, 3, HEIGHT)])) == ImageHeader("tiff", WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", [1, 8, 9, 16])
def test_tiff_whose_size_only_the_decoder_could_read_is_refused(kind: int) -> None:
    with pytest.raises(UndecodableImage, match="size in an unusual way"):
        read_header(tiff([(256, kind, 9), (257, 3, HEIGHT)]))


@pytest.mark.parametrize(
    "data",
    [
        *(encoded(suffix) for suffix in SUFFIXES.values()),
        encoded(".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        vp8(5, 5),
        vp8l(5, 5),
        vp8x(5, 5),
        bmp(5, 5),
        bmp(5, 5, header_size=12),
        tiff([(256, 3, 5), (257, 3, 5)]),
        tiff([(256, 3, 5), (257, 3, 5)], ">"),
    ],
    ids=[*SUFFIXES, "progressive", "VP8", "VP8L", "VP8X", "Windows BMP", "OS/2 BMP", "little TIFF", "big TIFF"],
)
def test_file_cut_off_anywhere_has_its_true_size_or_is_refused(data: bytes) -> None:
    whole = read_header(data)
    for length in range(len(data)):
        try:
            assert read_header(data[:length]) == whole
        except UndecodableImage:
            pass
        except UnsupportedFormat:
            assert length < 12  # less than its signature


@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_an_image_error(data: bytes) -> None:
    try:
        header = read_header(data)
    except ImageError:
        return
    assert header.format in IMAGE_FORMATS
    assert header.width > 0
    assert header.height > 0


@given(
    st.sampled_from(
        [
            b"\xff\xd8",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0WEBP",
            b"BM",
            b"GIF89a",
            b"II*\0",
            b"MM\0*",
            b"II*\0\x08\0\0\0",
        ]
    ),
    st.binary(max_size=200),
)
@example(b"\xff\xd8", b"\xff\xe0\x00\x00\xff\xe0\xff\xff")
def test_any_bytes_after_a_signature_are_a_picture_or_an_image_error(signature: bytes, rest: bytes) -> None:
    try:
        header = read_header(signature + rest)
    except ImageError:
        return
    assert header.pixels > 0


@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
@given(st.data())
def test_size_is_never_other_than_what_the_decoder_makes_of_damaged_bytes(
    image_format: ImageFormat, data: st.DataObject
) -> None:
    """A file whose header says less than the decoder finds would get past the limit on pixels."""
    damaged = bytearray(
        (HEIF / "colours.heic").read_bytes()
        if image_format == "heic"
        else encoded(SUFFIXES[image_format], [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    )
    # The size lies near the beginning; in OpenCV's TIFF files, near the end.
    furthest = 700 if image_format in ("avif", "heic") else 200
    places = st.integers(1, furthest).map(lambda place: -place if image_format == "tiff" else place + 10)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=3)):
        damaged[min(place, len(damaged) - 1)] = value
    try:
        header = read_header(bytes(damaged))
    except ImageError:
        return
    if header.pixels > 1_000_000:
        return  # such are refused, and too much for a test to decode
    spec = PreprocessingSpec(height=1, width=1, colour="grey")
    try:
        found = decode(bytes(damaged), spec, header=header).shape[:2]
    except ImageError:
        return
    if image_format in ("avif", "heic"):  # they may show a part of what is stored
        assert found[0] * found[1] <= header.pixels
    else:
        assert sorted(found) == sorted((header.height, header.width))
