"""Read from a file's first bytes what decoding throws away: its mode, whether it has alpha, its EXIF orientation.

It decodes no pixels, never raises on damaged files, and does not know what the facts are used for.
"""

import struct
from dataclasses import dataclass

from app.contract.header import ImageFormat

_PNG_MODES = {0: "grey", 2: "rgb", 3: "palette", 4: "grey+alpha", 6: "rgb+alpha"}
_JPEG_MODES = {1: "grey", 3: "rgb", 4: "cmyk"}
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class FileFacts:
    """`mode` in words ("rgb", "grey 16-bit"); `orientation` 1 to 8, 1 if the file says nothing."""

    mode: str
    alpha: bool
    orientation: int


def file_facts(data: bytes, image_format: ImageFormat) -> FileFacts:
    """Return the facts in an encoded picture's header; "unknown" if it is cut off or says nothing."""
    try:
        match image_format:
            case "jpeg":
                return _jpeg(data)
            case "png":
                return _png(data)
            case "webp":
                return _webp(data)
            case "bmp":
                return FileFacts("palette" if struct.unpack_from("<H", data, 28)[0] <= 8 else "rgb", False, 1)
            case "gif":
                return FileFacts("palette", False, 1)
            case "tiff":
                return _tiff(data)
            case "avif" | "heic":
                return FileFacts("rgb", False, 1)  # these formats rotate by properties of their own, not by EXIF
    except (struct.error, IndexError):
        return FileFacts("unknown", False, 1)


def _jpeg(data: bytes) -> FileFacts:
    position, orientation = 2, 1
    while True:
        position = data.index(b"\xff", position) if b"\xff" in data[position : position + 65536] else len(data)
        marker = data[position + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\x00\x00":
            orientation = _orientation(data[position + 10 : position + 2 + length])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return FileFacts(_JPEG_MODES.get(data[position + 9], "unknown"), False, orientation)
        elif marker in (0xD9, 0xDA):
            return FileFacts("unknown", False, orientation)
        position += 2 + max(2, length)


def _png(data: bytes) -> FileFacts:
    depth, colour = data[24], data[25]
    mode = _PNG_MODES.get(colour, "unknown") + (" 16-bit" if depth == 16 else "")
    alpha, orientation, position = colour in (4, 6), 1, 8
    while position + 8 <= len(data):
        kind, length = data[position + 4 : position + 8], int.from_bytes(data[position : position + 4], "big")
        if kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            orientation = _orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
    return FileFacts(mode, alpha, orientation)


def _webp(data: bytes) -> FileFacts:
    if data[12:16] == b"VP8L":
        alpha = bool(struct.unpack_from("<I", data, 21)[0] >> 28 & 1)
        return FileFacts("rgb+alpha" if alpha else "rgb", alpha, 1)
    alpha = data[12:16] == b"VP8X" and bool(data[20] & 0x10)
    orientation, position = 1, 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            orientation = _orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\x00\x00"))
        position += 8 + length + length % 2
    return FileFacts("rgb+alpha" if alpha else "rgb", alpha, orientation)


def _tiff(data: bytes) -> FileFacts:
    samples = _tag(data, 277) or 1
    depth = " 16-bit" if _tag(data, 258) == 16 else ""
    alpha = _tag(data, 338) in (1, 2)
    colour = "grey" if samples - alpha == 1 else "rgb"
    return FileFacts(colour + ("+alpha" if alpha else "") + depth, alpha, _orientation(data))


def _orientation(tiff: bytes) -> int:
    try:
        found = _tag(tiff, _ORIENTATION)
    except (struct.error, IndexError):
        return 1
    return found if 1 <= found <= 8 else 1


def _tag(tiff: bytes, tag: int) -> int:
    """Return the 16-bit number at `tag` in the first directory of a TIFF file or EXIF block; 0 without it."""
    order = "<" if tiff[:2] == b"II" else ">"
    directory: int = struct.unpack_from(order + "I", tiff, 4)[0]
    for index in range(struct.unpack_from(order + "H", tiff, directory)[0]):
        at = directory + 2 + 12 * index
        if struct.unpack_from(order + "H", tiff, at)[0] == tag:
            return int(struct.unpack_from(order + "H", tiff, at + 8)[0])
    return 0
