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

from app.contract.formats.pixels import Pixels, array_of, check_agreement, damaged, open_with_pillow
from app.errors import UndecodableImage

# Callers decode many pictures side by side.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pi_heif.options.DECODE_THREADS = 1

_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_GENERAL_BRANDS = frozenset((b"mif1", b"mif2", b"msf1", b"miaf"))
_MOST_BOXES = 4096
MAX_ITEMS = 4096
"""Items of a file, and so tiles of a picture: a phone's 48 megapixels have 192. A grid of 256 by 256 is none."""

_MOST_SHARED, _SMALL_BYTES = 8, 1 << 20  # encoders write equal tiles once
_MOST_COVERED, _SMALL_PIXELS = 4, 4_000_000  # tiles at the edges reach beyond the picture
_WITH_PARTS = (b"grid", b"iovl")
_IN_IDAT = 1

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
    at, end = _meta(data)
    _, item, _ = _find(data, at, end, b"pitm")
    primary = struct.unpack_from(">H" if data[item] == 0 else ">I", data, item + 4)[0]
    sizes = _sizes(data, at, end)
    if primary not in sizes:
        raise IndexError
    return sizes[primary]


def _meta(data: bytes) -> tuple[int, int]:
    """Return where the boxes that describe the items begin and end."""
    _, at, end = _find(data, 0, len(data), b"meta")
    return at + 4, end  # a version and flags come first


def _sizes(data: bytes, at: int, end: int) -> dict[int, tuple[int, int]]:
    """Return the width and height of each item that has them."""
    _, properties, properties_end = _find(data, at, end, b"iprp")
    _, container, container_end = _find(data, properties, properties_end, b"ipco")
    declared: dict[int, tuple[int, int]] = {}
    for number, (kind, begin, _) in enumerate(_boxes(data, container, container_end), 1):
        if kind == b"ispe":
            width, height = struct.unpack_from(">II", data, begin + 4)
            declared[number] = width, height
    found: dict[int, tuple[int, int]] = {}
    for item, number in _associations(data, _find(data, properties, properties_end, b"ipma")):
        if number in declared:
            found.setdefault(item, declared[number])
    return found


def check_heif(data: bytes, name: str) -> None:
    """Raise UndecodableImage for a file whose items cost a decoder far more than the pixels of its primary picture."""
    try:
        _Items(data).check()
    except (struct.error, IndexError, KeyError):
        raise damaged(name) from None
    except _OutOfProportion as exc:
        raise UndecodableImage(f"The {name} file has {exc}. Save it again.") from None


def decode_avif(avif: bytes, most_pixels: int) -> Pixels:
    """Return the pixels, 8 bits deep, RGB or RGBA, of a file that has been checked. Raises UndecodableImage."""
    try:
        picture = open_with_pillow(avif, "AVIF", "AVIF", most_pixels=most_pixels)
    except UnidentifiedImageError:
        raise damaged("AVIF") from None
    ImageOps.exif_transpose(picture, in_place=True)
    return Pixels(array_of(picture))


def decode_heic(heic: bytes, most_pixels: int) -> Pixels:
    """Return the pixels, 8 bits deep, RGB or RGBA, of a file that has been checked; libheif turns them.

    Raises UndecodableImage.
    """
    try:
        picture = pi_heif.open_heif(heic, convert_hdr_to_8bit=True)
        check_agreement(picture.size, most_pixels, "HEIC")
        array = np.array(picture)  # a copy: the pixels end with the picture
    except Exception as exc:
        raise damaged("HEIC") from exc
    return Pixels(array)


class _OutOfProportion(Exception):
    """What a file has, as it reads after "has ", that costs far more than its picture."""


class _Items:
    """What the boxes say of the items of a file: their kinds, sizes, parts and bytes. Raises as `heif_size`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._meta, self._end = _meta(data)
        self._sizes = _sizes(data, self._meta, self._end)
        self._kinds: dict[int, bytes] = {}
        self._parts: dict[int, list[int]] = {}
        self._auxiliaries: list[int] = []
        self._starts: dict[int, tuple[int, int]] = {}
        self._read_kinds()
        self._read_references()
        self._read_extents()

    def check(self) -> None:
        """Raise _OutOfProportion for parts that cost far more than the picture that is made of them."""
        width, height = heif_size(self._data)
        most = _MOST_COVERED * width * height + _SMALL_PIXELS
        if any(self._pixels(item) > most for item in self._auxiliaries):
            raise _OutOfProportion("an alpha plane far larger than its picture")
        for item, kind in self._kinds.items():
            if kind not in _WITH_PARTS:
                continue
            parts = self._parts.get(item, [])
            if any(self._kinds.get(part) in _WITH_PARTS for part in parts):
                raise _OutOfProportion("tiles that are made of tiles")
            if sum(map(self._pixels, parts)) > _MOST_COVERED * self._pixels(item) + _SMALL_PIXELS:
                raise _OutOfProportion("tiles far larger than its picture")
            if kind == b"grid" and self._grid(item) != (len(parts), *self._sizes[item]):
                raise _OutOfProportion("a grid of another size than it declares")

    def _pixels(self, item: int) -> int:
        width, height = self._sizes[item]
        return width * height

    def _grid(self, item: int) -> tuple[int, int, int]:
        """Return the number of tiles, the width and the height that the grid itself says."""
        method, at = self._starts[item]
        if method == _IN_IDAT:
            at += _find(self._data, self._meta, self._end, b"idat")[1]
        elif method:
            raise IndexError
        tiles = (self._data[at + 2] + 1) * (self._data[at + 3] + 1)
        width, height = struct.unpack_from(">II" if self._data[at + 1] & 1 else ">HH", self._data, at + 4)
        return tiles, width, height

    def _read_kinds(self) -> None:
        _, at, end = _find(self._data, self._meta, self._end, b"iinf")
        for kind, entry, _ in _boxes(self._data, at + (6 if self._data[at] == 0 else 8), end):
            if kind == b"infe" and self._data[entry] >= 2:
                code, size = (">H", 2) if self._data[entry] == 2 else (">I", 4)
                item = struct.unpack_from(code, self._data, entry + 4)[0]
                self._kinds[item] = self._data[entry + 6 + size : entry + 10 + size]

    def _read_references(self) -> None:
        count = 0
        for kind, at, end in _boxes(self._data, self._meta, self._end):
            if kind != b"iref":
                continue
            code = "H" if self._data[at] == 0 else "I"
            for relation, begin, _ in _boxes(self._data, at + 4, end):
                item, own = struct.unpack_from(f">{code}H", self._data, begin)
                count += own
                if count > MAX_ITEMS:
                    raise _OutOfProportion(f"more than {MAX_ITEMS:,} tiles or other parts")
                if relation == b"dimg":
                    start = begin + struct.calcsize(f">{code}H")
                    self._parts[item] = list(struct.unpack_from(f">{own}{code}", self._data, start))
                elif relation == b"auxl":
                    self._auxiliaries.append(item)

    def _read_extents(self) -> None:
        """Note where each item begins, and raise _OutOfProportion for items in very many pieces or of shared bytes."""
        _, at, _ = _find(self._data, self._meta, self._end, b"iloc")
        version, sizes = self._data[at], struct.unpack_from(">H", self._data, at + 4)[0]
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        at += 6

        def number(size: int) -> int:
            nonlocal at
            at += size
            if at > self._end:
                raise IndexError
            return int.from_bytes(self._data[at - size : at], "big")

        wide = 4 if version == 2 else 2
        count, held = 0, 0
        for _ in range(number(wide)):
            item, method = number(wide), number(2) & 15 if version else 0
            number(2)  # another file, which is not there
            base, own = number(base_size), number(2)
            count += 1 + own
            if count > 2 * MAX_ITEMS:
                raise _OutOfProportion(f"items in more than {2 * MAX_ITEMS:,} pieces")
            for _ in range(own):
                number(index_size if version else 0)
                offset = base + number(offset_size)
                held += number(length_size) or len(self._data)
                self._starts.setdefault(item, (method, offset))
        if held > _MOST_SHARED * len(self._data) + _SMALL_BYTES:
            raise _OutOfProportion("items that share the same bytes over and over")


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


def _associations(data: bytes, box: Box) -> Iterator[tuple[int, int]]:
    """Yield each item of an `ipma` box with the number of a property of its own, counted from 1."""
    _, at, _ = box
    version, is_wide = data[at], data[at + 3] & 1
    count = struct.unpack_from(">I", data, at + 4)[0]
    if count > MAX_ITEMS:
        raise IndexError
    at += 8
    for _ in range(count):
        item = struct.unpack_from(">H" if version == 0 else ">I", data, at)[0]
        at += 2 if version == 0 else 4
        own = data[at]
        at += 1
        for _ in range(own):
            number = struct.unpack_from(">H", data, at)[0] & 0x7FFF if is_wide else data[at] & 0x7F
            at += 2 if is_wide else 1
            yield item, number
