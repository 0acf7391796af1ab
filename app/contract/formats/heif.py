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

from app.contract.formats.coded_size import CodedSize, add_av1, add_hevc, add_nal_unit
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
"""Items of a file, and so tiles of a picture: a phone's 48 megapixels have 192, and no camera writes 256 by 256."""

_MOST_SHARED, _SMALL_BYTES = 8, 1 << 20  # encoders write equal tiles once
_MOST_COVERED, _SMALL_PIXELS = 4, 4_000_000  # tiles at the edges reach beyond the picture
_LAYER_PIXELS = 16_000_000  # of further layers in an item: decoders keep all of them, in up to 6 bytes a pixel
_WITH_PARTS = (b"grid", b"iovl", b"iden")
_CODED = {b"av01": b"av1C", b"hvc1": b"hvcC"}
_IN_IDAT = 1
_PADDED_TO = 64
"""HEVC codes whole blocks of up to 64 by 64 pixels; the size in the boxes does not include the padding of these blocks.

AV1 itself needs no padding, but its hardware encoders add some.
"""

_MOST_UNITS = 8 * MAX_ITEMS  # an item of an ordinary file has 2 to 6

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

    Raises struct.error or IndexError if the boxes end early or do not state it.
    """
    at, end = _meta(data)
    _, item, _ = _find(data, at, end, b"pitm")
    primary = struct.unpack_from(">H" if data[item] == 0 else ">I", data, item + 4)[0]
    sizes = _Properties(data, at, end).sizes
    if primary not in sizes:
        raise IndexError
    return sizes[primary]


def _meta(data: bytes) -> tuple[int, int]:
    """Return the positions at which the boxes that describe the items begin and end."""
    _, at, end = _find(data, 0, len(data), b"meta")
    return at + 4, end  # a version and flags come first


class _Properties:
    """The properties that the boxes give to items: width and height, and configurations of the decoder.

    Raises as `heif_size`.
    """

    def __init__(self, data: bytes, at: int, end: int) -> None:
        _, properties, properties_end = _find(data, at, end, b"iprp")
        _, container, container_end = _find(data, properties, properties_end, b"ipco")
        declared = dict(enumerate(_boxes(data, container, container_end), 1))
        self.sizes: dict[int, tuple[int, int]] = {}
        self.configurations: dict[int, list[Box]] = {}
        for item, number in _associations(data, _find(data, properties, properties_end, b"ipma")):
            box = declared.get(number)
            if box is None:
                continue
            if box[0] == b"ispe":
                width, height = struct.unpack_from(">II", data, box[1] + 4)
                self.sizes.setdefault(item, (width, height))
            elif box[0] in _CODED.values():
                self.configurations.setdefault(item, []).append(box)


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
    # libavif would take the first frame of an image sequence, of which nothing was checked. A file that calls itself a
    # still picture has its primary picture decoded.
    still = avif if avif[8:12] == b"avif" else avif[:8] + b"avif" + avif[12:]
    try:
        picture = open_with_pillow(still, "AVIF", "AVIF", most_pixels=most_pixels)
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
    """The part of a file that costs far more than its picture, in words that follow "has "."""


class _Items:
    """The items of a file, as its boxes describe them: their kinds, sizes, parts and bytes. Raises as `heif_size`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._meta, self._end = _meta(data)
        self._properties = _Properties(data, self._meta, self._end)
        self._sizes = self._properties.sizes
        self._kinds: dict[int, bytes] = {}
        self._parts: dict[int, list[int]] = {}
        self._auxiliaries: list[int] = []
        self._extents: dict[int, list[tuple[int, int, int]]] = {}
        self._coded: dict[int, int] = {}
        self._read_kinds()
        self._read_references()
        self._read_extents()

    def check(self) -> None:
        """Raise _OutOfProportion for parts that cost far more than the picture that is made of them."""
        self._check_proportions()
        self._read_coded_sizes()
        self._check_proportions()  # with all that is coded: padding, and several pictures in an item

    def _check_proportions(self) -> None:
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

    def _read_coded_sizes(self) -> None:
        """Note the pixels that are coded in each item; raise _OutOfProportion for more than its boxes say."""
        left = _MOST_UNITS
        for item, kind in self._kinds.items():
            if kind not in _CODED:
                continue
            found = self._coded_size(item, kind, left)
            left -= found.units
            width, height = (-(-side // _PADDED_TO) * _PADDED_TO for side in self._sizes[item])
            if found.width > width or found.height > height:
                raise _OutOfProportion("a coded picture that is larger than it says")
            pixels = found.width * found.height
            self._coded[item] = pixels * found.pictures
            if self._coded[item] > pixels + _LAYER_PIXELS:
                raise _OutOfProportion("very many pictures instead of one")

    def _coded_size(self, item: int, kind: bytes, most_units: int) -> CodedSize:
        found = CodedSize()
        for name, begin, end in self._properties.configurations.get(item, ()):
            if name != _CODED[kind]:
                continue
            if kind == b"av01":
                add_av1(found, self._data[begin + 4 : end], most_units)
            else:
                for unit in _parameter_sets(self._data, begin, end):
                    add_nal_unit(found, unit, most_units)
        add = add_av1 if kind == b"av01" else add_hevc
        add(found, b"".join(self._pieces(item)), most_units)
        return found

    def _pieces(self, item: int) -> Iterator[bytes]:
        """Yield the bytes of an item, an extent at a time."""
        for method, at, length in self._extents[item]:
            begin, end = 0, len(self._data)
            if method == _IN_IDAT:
                _, begin, end = _find(self._data, self._meta, self._end, b"idat")
            elif method:
                raise IndexError
            if begin + at + length > end or (not length and len(self._extents[item]) > 1):
                raise IndexError
            yield self._data[begin + at : begin + at + length if length else end]

    def _pixels(self, item: int) -> int:
        width, height = self._sizes[item]
        return max(width * height, self._coded.get(item, 0))

    def _grid(self, item: int) -> tuple[int, int, int]:
        """Return the number of tiles, the width and the height that the grid itself says."""
        layout = b"".join(self._pieces(item))
        tiles = (layout[2] + 1) * (layout[3] + 1)
        width, height = struct.unpack_from(">II" if layout[1] & 1 else ">HH", layout, 4)
        return tiles, width, height

    def _read_kinds(self) -> None:
        _, at, end = _find(self._data, self._meta, self._end, b"iinf")
        for kind, entry, _ in _boxes(self._data, at + (6 if self._data[at] == 0 else 8), end):
            if kind == b"infe" and self._data[entry] >= 2:
                code, size = (">H", 2) if self._data[entry] == 2 else (">I", 4)
                item = struct.unpack_from(code, self._data, entry + 4)[0]
                if item in self._kinds:
                    raise IndexError
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
        """Note the place of each item, and raise _OutOfProportion for items in very many pieces or of shared bytes."""
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
            if item in self._extents:
                raise IndexError
            extents = self._extents[item] = []
            count += 1 + own
            if count > 2 * MAX_ITEMS:
                raise _OutOfProportion(f"items in more than {2 * MAX_ITEMS:,} pieces")
            for _ in range(own):
                number(index_size if version else 0)
                offset = base + number(offset_size)
                length = number(length_size)
                held += length or len(self._data)
                extents.append((method, offset, length))
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


def _parameter_sets(data: bytes, at: int, end: int) -> Iterator[bytes]:
    """Yield the NAL units of an `hvcC` box."""
    arrays, at = data[at + 22], at + 23
    for _ in range(arrays):
        count = struct.unpack_from(">H", data, at + 1)[0]
        at += 3
        for _ in range(count):
            begin = at + 2
            at = begin + struct.unpack_from(">H", data, at)[0]
            if at > end:
                raise IndexError
            yield data[begin:at]
