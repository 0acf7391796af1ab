"""Read the size of AVIF and HEIC pictures from their boxes, and decode them with libavif (by Pillow) and libheif.

Both are the High Efficiency Image File Format, ISO/IEC 23008-12: boxes of ISO/IEC 14496-12 that say where the primary
picture lies, how large it is and how it is turned, and the picture in AV1 or HEVC, often as a grid of tiles.
"""

import struct
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pi_heif
from PIL import AvifImagePlugin, ImageOps, UnidentifiedImageError

from app.contract.formats.pixels import Pixels, array_of, damaged, open_with_pillow

# Callers decode many pictures side by side.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pi_heif.options.DECODE_THREADS = 1

_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_GENERAL_BRANDS = frozenset((b"mif1", b"mif2", b"msf1", b"miaf"))
_MOST_BOXES = 4096

Box = tuple[bytes, int, int]
"""The kind of a box, and where its content begins and ends."""


def heif_format_of(data: bytes) -> Literal["avif", "heic"] | None:
    """Say which of the two a file is by the brands that it declares."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    major = data[8:12]
    brands = [major, *(data[at : at + 4] for at in range(16, end - 3, 4))]
    if major not in _AVIF_BRANDS | _HEIC_BRANDS | _GENERAL_BRANDS:
        return None
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return "avif"
        if brand in _HEIC_BRANDS:
            return "heic"
    return None


def heif_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of the primary picture as stored, before it is turned.

    Raises struct.error or IndexError if the boxes end early or do not say it.
    """
    meta = _find(data, 0, len(data), b"meta")
    at, end = meta[1] + 4, meta[2]  # a version and flags come first
    _, item, _ = _find(data, at, end, b"pitm")
    primary = struct.unpack_from(">H" if data[item] == 0 else ">I", data, item + 4)[0]
    _, properties, properties_end = _find(data, at, end, b"iprp")
    _, container, container_end = _find(data, properties, properties_end, b"ipco")
    sizes = [(number, box) for number, box in enumerate(_boxes(data, container, container_end), 1) if box[0] == b"ispe"]
    own = _properties_of(data, _find(data, properties, properties_end, b"ipma"), primary)
    for number, (_, begin, _) in sizes:
        if number in own:
            width, height = struct.unpack_from(">II", data, begin + 4)
            return width, height
    raise IndexError


def decode_avif(avif: bytes) -> Pixels:
    """Return the pixels, 8 bits deep, RGB or RGBA. Raises UndecodableImage."""
    try:
        picture = open_with_pillow(avif, "AVIF", "AVIF")
    except UnidentifiedImageError:
        raise damaged("AVIF") from None
    ImageOps.exif_transpose(picture, in_place=True)
    return Pixels(array_of(picture))


def decode_heic(heic: bytes) -> Pixels:
    """Return the pixels, 8 bits deep, RGB or RGBA; libheif turns them. Raises UndecodableImage."""
    try:
        picture = pi_heif.open_heif(heic, convert_hdr_to_8bit=True)
        array = np.array(picture)  # a copy: the pixels end with the picture
    except Exception as exc:
        raise damaged("HEIC") from exc
    return Pixels(array)


def _boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    """Yield the boxes that lie between two positions. Raises struct.error or IndexError if one reaches beyond."""
    for _ in range(_MOST_BOXES):
        if at >= end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if size == 1:
            size = struct.unpack_from(">Q", data, begin)[0]
            begin += 8
        following = end if size == 0 else at + size
        if following < begin or following > end:
            raise IndexError
        yield kind, begin, following
        at = following
    raise IndexError


def _find(data: bytes, at: int, end: int, kind: bytes) -> Box:
    for box in _boxes(data, at, end):
        if box[0] == kind:
            return box
    raise IndexError


def _properties_of(data: bytes, associations: Box, item: int) -> set[int]:
    """Return the numbers of the properties, counted from 1, that an `ipma` box gives to an item."""
    _, at, end = associations
    version, is_wide = data[at], data[at + 3] & 1
    count = struct.unpack_from(">I", data, at + 4)[0]
    at += 8
    found: set[int] = set()
    for _ in range(min(count, end - at)):
        number = struct.unpack_from(">H" if version == 0 else ">I", data, at)[0]
        at += 2 if version == 0 else 4
        own = data[at]
        at += 1
        for _ in range(own):
            index = struct.unpack_from(">H", data, at)[0] & 0x7FFF if is_wide else data[at] & 0x7F
            at += 2 if is_wide else 1
            if number == item:
                found.add(index)
    return found
