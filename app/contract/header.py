"""Read a picture's format and size from its first bytes, before anything is decoded.

It decodes no pixels. The format is decided by the bytes, never by a file name or a declared type.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from app.errors import UndecodableImage, UnsupportedFormat

ImageFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff"]
IMAGE_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)

# Enough of a file to recognise what it is, for the sentence that says what to send instead.
_OTHER_FORMATS: tuple[tuple[bytes, int, str], ...] = (
    (b"ftypheic", 4, "HEIC"),
    (b"ftypheix", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIF"),
    (b"ftypavif", 4, "AVIF"),
    (b"ftypavis", 4, "AVIF"),
    (b"ftyp", 4, "a video"),
    (b"%PDF", 0, "PDF"),
    (b"<svg", 0, "SVG"),
    (b"<?xml", 0, "XML or SVG"),
    (b"\x00\x00\x00\x0cjP  ", 0, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", 0, "JPEG XL"),
    (b"\x00\x00\x01\x00", 0, "ICO"),
    (b"8BPS", 0, "Photoshop"),
    (b"II\x2b\x00", 0, "BigTIFF"),
    (b"MM\x00\x2b", 0, "BigTIFF"),
    (b"PK\x03\x04", 0, "a ZIP archive"),
)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the file says of itself: its format, and its width and height in pixels as stored (before EXIF turns it)."""

    format: ImageFormat
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_header(data: bytes) -> ImageHeader:
    """Return the format and size of an encoded picture.

    Raises UnsupportedFormat if the bytes are not one of the accepted formats, UndecodableImage if they begin like one
    but hold no size.
    """
    image_format = _format_of(data)
    try:
        width, height = _SIZE_READERS[image_format](data)
    except (struct.error, IndexError):
        raise UndecodableImage(f"The {image_format.upper()} file is cut off inside its header.") from None
    if width <= 0 or height <= 0:
        raise UndecodableImage(f"The {image_format.upper()} file declares a size of {width}x{height} pixels.")
    return ImageHeader(image_format, width, height)


def _format_of(data: bytes) -> ImageFormat:
    if data[:2] == b"\xff\xd8":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM":
        return "bmp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] in (b"II*\x00", b"MM\x00*"):
        return "tiff"
    if not data:
        raise UndecodableImage("The picture is empty (0 bytes).")
    found = next((name for magic, at, name in _OTHER_FORMATS if data[at : at + len(magic)] == magic), None)
    what = f"This is {found}" if found else "These bytes are not a picture in a known format"
    raise UnsupportedFormat(f"{what}; send JPEG, PNG, WebP, BMP, GIF or TIFF.")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    while True:
        if data[position] != 0xFF:
            # Stray bytes between segments: decoders skip to the next marker, so the size must be found where they do.
            position = data.find(b"\xff", position)
            if position < 0:
                raise IndexError
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed or standalone, no length
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        elif marker in (0xD9, 0xDA):  # end of image, or its scan, before any frame
            raise IndexError
        else:
            position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        if len(data) < 30:  # slices, unlike struct, do not notice
            raise IndexError
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise IndexError


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's short header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height means rows from the top


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    directory = struct.unpack_from(order + "I", data, 4)[0]
    entries = struct.unpack_from(order + "H", data, directory)[0]
    size: dict[int, int] = {}
    for index in range(entries):
        at = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257):
            # libtiff takes the first of two equal tags, and other integer types than these: a size that only it can
            # read would get past the pixel limit.
            if kind not in (3, 4):
                raise UndecodableImage("The TIFF file declares its size in an unusual way; save it again.")
            size.setdefault(tag, struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)[0])
    return size.get(256, 0), size.get(257, 0)


_SIZE_READERS: dict[ImageFormat, Callable[[bytes], tuple[int, int]]] = {
    "jpeg": _jpeg_size,
    "png": _png_size,
    "webp": _webp_size,
    "bmp": _bmp_size,
    "gif": _gif_size,
    "tiff": _tiff_size,
}
