"""Walk the segments, chunks and tags of an encoded picture, and reject one that costs too much for its pixels.

A decoder follows every scan, text and tile that a file claims, so a few kilobytes can cost it seconds and gigabytes
though the picture has few pixels. This module finds such files without decoding them. It knows neither pixels nor the
limits of the settings.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from app.contract.formats.pixels import damaged
from app.errors import UndecodableImage

MAX_SEGMENTS = 4096
"""Segments of a JPEG, and entries of a TIFF directory; libtiff has the same limit on entries."""

MAX_SCANS = 64
"""Scans of a JPEG.

The usual script of a progressive JPEG has 10 scans, or 18 in CMYK, and optimisers write a few more. Each scan costs a
walk over the whole picture, and takes a few bytes of the file.
"""

MAX_TILES = 32_768
"""Tiles or strips of a TIFF. Each costs a microsecond of its own, however small it is."""

_SMALL_TILE_BYTES = 16 << 20
_MOST_BYTES_PER_PIXEL = 16
_MAX_INFLATION = 1032  # what deflate can reach: 258 bytes for each two bits
_SMALL_INFLATION_BYTES = 32 << 20  # 60 ms
_INFLATION_STEP = 1 << 18

_SCAN_START, _IMAGE_END = b"\xff\xda", b"\xff\xd9"
_AFTER_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte, a restart, nor fill
_NEXT_MARKER = re.compile(rb"\xff+[^\xff]")
_PNG_PIXEL_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND", b"acTL", b"fcTL", b"fdAT", b"bKGD")
)
_PNG_CHUNK = struct.Struct(">I4s")  # the length of its content, and its kind
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


# JPEG


def next_marker(jpeg: bytes, position: int) -> int:
    """Return where the next marker is: past stray bytes, at the last of its fill bytes. Raises IndexError."""
    found = _NEXT_MARKER.search(jpeg, position)
    if found is None:
        raise IndexError
    return found.end() - 2


def too_many_segments() -> UndecodableImage:
    return UndecodableImage(f"The JPEG file has more than {MAX_SEGMENTS:,} segments. Save it again.")


def _jpeg_markers(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker that has a segment, and the segment's start, in libjpeg's order, to the end of the image or of
    the file.

    Raises UndecodableImage after MAX_SEGMENTS markers of any kind.
    """
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = _NEXT_MARKER.search(jpeg, position)
        if found is None:
            return
        position = found.end()
        marker = jpeg[position - 1]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed or standalone, no length
            continue
        yield marker, position
        if marker == 0xD9:
            return
        position += max(2, int.from_bytes(jpeg[position : position + 2], "big"))
        if marker == 0xDA:
            after = _AFTER_ENTROPY.search(jpeg, position)
            if after is None:
                return
            position = after.start()
    raise too_many_segments()


def check_jpeg(jpeg: bytes) -> None:
    """Raise UndecodableImage for a JPEG of too many scans, or one whose end is missing.

    The decoder rejects a file that is cut off, but not if other bytes follow: it takes those for pixels.
    """
    if jpeg.endswith(_IMAGE_END) and jpeg.count(_SCAN_START) <= MAX_SCANS:
        return
    # Some may be no scans: they may lie in a thumbnail, a profile, or behind the end.
    scans = marker = 0
    for marker, _ in _jpeg_markers(jpeg):
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise UndecodableImage(
                f"The JPEG file has more than {MAX_SCANS} scans, and each scan costs a pass over all pixels. Save it "
                "as baseline JPEG."
            )
    if marker != 0xD9:
        raise damaged("JPEG")


def jpeg_coefficient_bytes(jpeg: bytes) -> float:
    """Return how many bytes a decoder keeps of each pixel until the last scan, at any scale: 0 for a single scan.

    Those are the coefficients, 2 bytes for each sample: a pixel has three samples, or 1.5 if colours are halved.
    """
    progressive, factors = False, b""
    for marker, at in _jpeg_markers(jpeg):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            progressive = marker in (0xC2, 0xCA)
            factors = jpeg[at + 9 : at + 8 + 3 * int.from_bytes(jpeg[at + 7 : at + 8]) : 3]
        elif marker == 0xDA:
            if not factors or not (progressive or int.from_bytes(jpeg[at + 2 : at + 3]) < len(factors)):
                return 0.0
            across, down = [factor >> 4 for factor in factors], [factor & 15 for factor in factors]
            samples = sum(each * other for each, other in zip(across, down, strict=True))
            return 2 * samples / max(1, max(across) * max(down))
    return 0.0


# PNG


def find_png_chunks(png: bytes) -> dict[bytes, int] | None:
    """Return the offset of the first chunk of each kind; None if one claims more bytes than the file has.

    OpenCV allocates the claimed size, up to 4 GB. Raises UndecodableImage for very many very small chunks.
    """
    chunks: dict[bytes, int] = {}
    position, size = 8, len(png)
    allowed = 1024 + size // 1024
    while position + 8 <= size:
        length, kind = _PNG_CHUNK.unpack_from(png, position)
        chunks.setdefault(kind, position)
        position += 12 + length
        allowed -= 1
        if not allowed:
            raise UndecodableImage("The PNG file consists of too many very small chunks. Save it again.")
        if kind == b"IEND":
            break
    return None if position > size else chunks


def png_of_pixels(png: bytes, chunks: dict[bytes, int]) -> bytes:
    """Return the PNG without chunks that do not affect its pixels, and check that it inflates to no more than they
    need.

    libpng inflates every text and profile, to 8 MB from 8 kB, and also the data after the last row. The file itself is
    returned if there is nothing to leave out. Raises UndecodableImage.
    """
    if not chunks.keys() <= _PNG_PIXEL_CHUNKS:
        kept = [png[:8]]
        for kind, start, end in _png_spans(png):
            if kind in _PNG_PIXEL_CHUNKS:
                kept.append(png[start:end])
        png = b"".join(kept)
    if len(png) * _MAX_INFLATION > _SMALL_INFLATION_BYTES:
        _check_inflation(png)
    return png


def _png_spans(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of each chunk, up to IEND."""
    position = 8
    while position + 8 <= len(png):
        kind, start = png[position + 4 : position + 8], position
        position += 12 + int.from_bytes(png[position : position + 4], "big")
        yield kind, start, position
        if kind == b"IEND":
            return


def _check_inflation(png: bytes) -> None:
    width, height, depth, colour = struct.unpack_from(">IIBB", png, 16)
    # Twice what the pixels need leaves room for the rows of interlaced passes.
    left = 2 * height * (2 + (width * depth * _PNG_SAMPLES.get(colour, 4) + 7) // 8) + 1024
    stream = zlib.decompressobj()
    try:
        for kind, start, end in _png_spans(png):
            data = png[start + 8 : end - 4] if kind == b"IDAT" else b""
            while data and not stream.eof:
                left -= len(stream.decompress(data, _INFLATION_STEP))
                data = stream.unconsumed_tail
                if left < 0:
                    raise UndecodableImage("The PNG file holds far more data than its pixels need. Save it again.")
    except zlib.error:
        pass  # it is damaged: the decoder says so


# TIFF


@dataclass(frozen=True, slots=True)
class TiffEntry:
    """One tag of a TIFF directory: its type, the number of its values, and the position of these or of their offset."""

    kind: int
    count: int
    at: int


def tiff_directory(data: bytes) -> dict[int, TiffEntry]:
    """Return the tags of the first directory of a TIFF file; if a tag is repeated, the first one, as libtiff does.

    Raises struct.error if the directory is cut off, UndecodableImage if it is larger than libtiff reads.
    """
    order = _tiff_order(data)
    directory = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, directory)[0]
    if count > MAX_SEGMENTS:
        raise UndecodableImage(f"The TIFF directory has more than {MAX_SEGMENTS:,} entries. Save the file again.")
    entries: dict[int, TiffEntry] = {}
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, at)
        entries.setdefault(tag, TiffEntry(kind, values, at + 8))
    return entries


def _tiff_order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def tiff_number(data: bytes, entry: TiffEntry) -> int:
    """Return the first value of a tag of 16 or 32 bits.

    Raises UndecodableImage for the other types that libtiff reads: a number that only libtiff can read would get past
    the limits.
    """
    order = _tiff_order(data)
    if entry.kind not in (3, 4) or entry.count == 0:
        raise UndecodableImage("The TIFF file declares its size in an unusual way; save it again.")
    at = entry.at
    if entry.count * (2 if entry.kind == 3 else 4) > 4:
        at = struct.unpack_from(order + "I", data, at)[0]
    return int(struct.unpack_from(order + ("H" if entry.kind == 3 else "I"), data, at)[0])


def tiff_numbers(data: bytes, entry: TiffEntry) -> list[int]:
    """Return all values of a tag of 8, 16 or 32 bits, at most MAX_SEGMENTS. Raises as `tiff_number`."""
    code = {1: "B", 3: "H", 4: "I"}.get(entry.kind)
    if code is None or not 0 < entry.count <= MAX_SEGMENTS:
        raise UndecodableImage("The TIFF file declares its pixels in an unusual way; save it again.")
    order, at = _tiff_order(data), entry.at
    if entry.count * struct.calcsize(code) > 4:
        at = struct.unpack_from(order + "I", data, at)[0]
    return list(struct.unpack_from(f"{order}{entry.count}{code}", data, at))


def check_tiff(tiff: bytes, width: int, height: int) -> None:
    """Raise UndecodableImage for a TIFF whose tiles or strips cost far more than its pixels."""
    try:
        entries = tiff_directory(tiff)

        def number(tag: int, default: int) -> int:
            return tiff_number(tiff, entries[tag]) if tag in entries else default

        # A strip may claim more rows than there are; libtiff takes those that there are.
        tile_width, tile_height = width, min(height, number(278, height))
        if 322 in entries or 323 in entries:
            tile_width, tile_height = number(322, width), number(323, height)
        samples, bits = number(277, 1), number(258, 1)
    except struct.error:
        return  # it is cut off: the decoder says so
    if tile_width == 0 or tile_height == 0:
        raise UndecodableImage("The TIFF file has tiles or strips without pixels. Save it again.")
    bytes_per_pixel = max(4, samples * (bits + 7) // 8)
    if tile_width * tile_height * bytes_per_pixel > width * height * _MOST_BYTES_PER_PIXEL + _SMALL_TILE_BYTES:
        raise UndecodableImage("The TIFF file has tiles or strips far larger than its picture. Save it again.")
    if -(-width // tile_width) * -(-height // tile_height) > MAX_TILES:
        raise UndecodableImage(f"The TIFF file has more than {MAX_TILES:,} tiles or strips. Save it with larger ones.")
