"""Read a picture's format and size from its first bytes, before anything is decoded.

It decodes no pixels. The format is decided by the bytes, never by a file name or a declared type.
"""

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from app.contract.formats.heif import heif_format_of, heif_size
from app.contract.other_formats import name_of_other
from app.contract.structure import MAX_SEGMENTS, next_marker, tiff_directory, tiff_number, too_many_segments
from app.errors import ImageError, UndecodableImage, UnsupportedFormat, UnsupportedLayout

ImageFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heic"]
IMAGE_FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)

_ALL_FORMATS = frozenset[str](IMAGE_FORMATS)
_JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # baseline, extended, progressive; arithmetic ones
_NAMES: dict[ImageFormat, str] = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "bmp": "BMP",
    "gif": "GIF",
    "tiff": "TIFF",
    "avif": "AVIF",
    "heic": "HEIC",
}


class ImageHeader(NamedTuple):
    """The format of a file, and its width and height in pixels as stored (before its EXIF orientation is applied)."""

    format: ImageFormat
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_header(data: bytes, *, accepted: frozenset[str] = _ALL_FORMATS) -> ImageHeader:
    """Return the format and size of an encoded picture.

    Raises UnsupportedFormat if the bytes are not of a format in `accepted`, UndecodableImage if they begin like one but
    hold no size.
    """
    image_format = _format_of(data)
    if image_format is None or image_format not in accepted:
        raise _unsupported(data, image_format, accepted)
    try:
        width, height = _SIZE_READERS[image_format](data)
    except (struct.error, IndexError):
        raise UndecodableImage(f"The {_NAMES[image_format]} file is cut off inside its header.") from None
    if width <= 0 or height <= 0:
        raise UndecodableImage(f"The {_NAMES[image_format]} file declares a size of {width}x{height} pixels.")
    return ImageHeader(image_format, width, height)


def _format_of(data: bytes) -> ImageFormat | None:
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
    return heif_format_of(data)


def _unsupported(data: bytes, image_format: ImageFormat | None, accepted: frozenset[str]) -> ImageError:
    if not data:
        return UndecodableImage("The picture is empty (0 bytes).")
    found = _NAMES[image_format] if image_format else name_of_other(data)
    what = f"This is {found}" if found else "These bytes are not a picture in a known format"
    *some, last = [name for each, name in _NAMES.items() if each in accepted]
    return UnsupportedFormat(f"{what}; send {', '.join(some)}{' or ' if some else ''}{last}.")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    # The same walk as `jpeg_segments`, without a generator: half the time, for every JPEG.
    position = 2
    for _ in range(MAX_SEGMENTS):
        if data[position] != 0xFF or data[position + 1] == 0xFF:
            # Stray or fill bytes between segments: decoders skip to the next marker, so the size must be found there.
            position = next_marker(data, position)
        marker = data[position + 1]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed or standalone, no length
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            precision, height, width = struct.unpack_from(">BHH", data, position + 4)
            if marker not in _JPEG_FRAMES:
                raise UnsupportedLayout("The JPEG file is lossless or hierarchical; save it as baseline JPEG.")
            if precision != 8:
                raise UnsupportedLayout(f"The JPEG file has {precision} bits per sample; save it with 8.")
            return width, height
        elif marker in (0xD9, 0xDA):  # end of image, or its scan, before any frame
            raise IndexError
        else:
            position += 2 + max(2, struct.unpack_from(">H", data, position + 2)[0])
    raise too_many_segments()


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
    entries = tiff_directory(data)
    width, height = (tiff_number(data, entries[tag]) if tag in entries else 0 for tag in (256, 257))
    return width, height


_SIZE_READERS: dict[ImageFormat, Callable[[bytes], tuple[int, int]]] = {
    "jpeg": _jpeg_size,
    "png": _png_size,
    "webp": _webp_size,
    "bmp": _bmp_size,
    "gif": _gif_size,
    "tiff": _tiff_size,
    "avif": heif_size,
    "heic": heif_size,
}
