"""Decode a BMP: pixels of 16 and 32 bits by their masks, run-length codes, and all others with Pillow.

The masks may lie anywhere and have any number of bits; Pillow and OpenCV know some of them. Pillow takes seconds for
run-length codes, and OpenCV shifts rows whose codes are longer than the row. The headers and codes are those of
Microsoft's "Bitmap Storage" and "Bitmap Compression".
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from app.contract.formats.pixels import Pixels, array_of, damaged, open_with_pillow, unsupported

_NAME = "BMP"
_INSTEAD = "24-bit BMP or PNG"
_PLAIN, _RLE8, _RLE4, _BIT_FIELDS, _JPEG, _PNG, _ALPHA_BIT_FIELDS = range(7)
_FILE_HEADER_BYTES = 14
_FIRST_MASK = _FILE_HEADER_BYTES + 40
_RGB_MASKS_BYTES, _RGBA_MASKS_BYTES = 52, 56  # of a header that has the masks itself
_DEFAULT_MASKS = {16: (0x7C00, 0x03E0, 0x001F), 32: (0xFF0000, 0x00FF00, 0x0000FF)}


MAX_RLE_BYTES = 1 << 20
"""Run-length codes are read one by one; this many take half a second."""


def decode_bmp(bmp: bytes) -> Pixels:
    """Return the pixels of a BMP. Raises UnsupportedLayout or UndecodableImage."""
    try:
        start, header = struct.unpack_from("<II", bmp, 10)
        if header == 12:  # OS/2's short header
            bits, compression = struct.unpack_from("<H", bmp, 24)[0], _PLAIN
        else:
            bits, compression = struct.unpack_from("<HI", bmp, 28)
        if compression in (_JPEG, _PNG):
            raise unsupported(_NAME, f"a {'JPEG' if compression == _JPEG else 'PNG'} inside", _INSTEAD)
        if (bits, compression) in ((8, _RLE8), (4, _RLE4)):
            return _by_codes(bmp, start, header, bits)
        if bits in _DEFAULT_MASKS and header >= 40:
            return _by_masks(bmp, start, header, bits, compression)
    except (struct.error, IndexError):
        raise damaged(_NAME) from None
    try:
        return Pixels(array_of(open_with_pillow(bmp, "BMP", _NAME)))
    except UnidentifiedImageError:
        raise unsupported(_NAME, f"{bits}-bit pixels", _INSTEAD) from None


def _by_codes(bmp: bytes, start: int, header: int, bits: int) -> Pixels:
    """Return the pixels of run-length codes. Raises struct.error if the file is cut off inside its header."""
    width, height = struct.unpack_from("<ii", bmp, 18)
    codes = bmp[start:]
    if len(codes) > MAX_RLE_BYTES:
        raise unsupported(_NAME, f"more than {MAX_RLE_BYTES >> 20} MiB of run-length codes", _INSTEAD)
    if height < 0:
        raise damaged(_NAME)
    entries = bmp[_FILE_HEADER_BYTES + header : start][: 4 << bits]
    palette = np.zeros((1 << bits, 4), np.uint8)
    palette.reshape(-1)[: len(entries)] = np.frombuffer(entries, np.uint8)
    indices = np.frombuffer(_indices(codes, width, height, bits), np.uint8).reshape(height, width)[::-1]
    return Pixels(palette[:, 2::-1][indices])


def _indices(codes: bytes, width: int, height: int, bits: int) -> bytearray:
    """Return the palette index of each pixel, from the bottom row; 0 for pixels without a code.

    Codes beyond the end of a row are dropped. Raises UndecodableImage if the codes end before the picture.
    """
    out = bytearray(width * height)
    x = y = at = 0
    while at + 1 < len(codes) and y < height:
        count, value = codes[at], codes[at + 1]
        at += 2
        if count:
            levels = bytes((value,)) * count if bits == 8 else bytes((value >> 4, value & 15)) * (count + 1 >> 1)
        elif value > 2:  # this many literal pixels
            count = value
            size = count if bits == 8 else count + 1 >> 1
            levels = codes[at : at + size]
            if bits == 4:
                levels = bytes(nibble for byte in levels for nibble in (byte >> 4, byte & 15))
            at += size + (size & 1)
        elif value == 2:  # continue at another position
            x, y = x + codes[at], y + codes[at + 1]
            at += 2
            continue
        elif value == 1:
            return out
        else:
            x, y = 0, y + 1
            continue
        end = min(x + count, width)
        if x < end:
            out[y * width + x : y * width + end] = levels[: end - x]
        x += count
    if y < height - 1 or (y == height - 1 and x < width):
        raise damaged(_NAME)
    return out


def _by_masks(bmp: bytes, start: int, header: int, bits: int, compression: int) -> Pixels:
    """Return the pixels of 16 or 32 bits. Raises struct.error if the file is cut off inside its header."""
    masks = _masks(bmp, header, bits, compression)
    width, height = struct.unpack_from("<ii", bmp, 18)
    stride = (width * bits // 8 + 3) // 4 * 4
    rows = abs(height)
    if start + stride * rows > len(bmp):
        raise damaged(_NAME)
    words = np.frombuffer(bmp, np.uint8, stride * rows, start).reshape(rows, stride)
    words = words[:, : width * bits // 8].copy().view(f"<u{bits // 8}")
    if height > 0:  # rows from the bottom
        words = words[::-1]
    channels = [_channel(words, mask) for mask in masks]
    if len(channels) == 4 and not channels[3].any():
        channels.pop()  # many programs leave the alpha that they declare empty
    return Pixels(np.stack(channels, axis=2))


def _masks(bmp: bytes, header: int, bits: int, compression: int) -> tuple[int, ...]:
    """Return the masks of red, green and blue, and of alpha if there is one. Raises UnsupportedLayout."""
    if compression == _PLAIN:
        return _DEFAULT_MASKS[bits]  # the fourth byte of 32 bits is padding far more often than alpha
    if compression not in (_BIT_FIELDS, _ALPHA_BIT_FIELDS):
        raise unsupported(_NAME, f"{bits}-bit pixels in compression {compression}", _INSTEAD)
    count = 4 if header >= _RGBA_MASKS_BYTES or compression == _ALPHA_BIT_FIELDS else 3
    masks = struct.unpack_from(f"<{count}I", bmp, _FIRST_MASK)
    if count == 4 and not masks[3]:
        masks = masks[:3]
    for mask in masks:
        if not mask or mask >> bits or not _is_one_run(mask):
            raise unsupported(_NAME, "colour masks of scattered, missing or too many bits", _INSTEAD)
    return masks


def _is_one_run(mask: int) -> bool:
    run = mask >> _lowest_bit(mask)
    return run & (run + 1) == 0


def _lowest_bit(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _channel(words: NDArray[Any], mask: int) -> NDArray[np.uint8]:
    """Return the levels under a mask, spread over 0 to 255 and rounded to the nearest."""
    shift = _lowest_bit(mask)
    most = mask >> shift
    levels = words >> shift & most
    if most == 255:
        return levels.astype(np.uint8)
    return ((levels.astype(np.uint64) * 510 + most) // (2 * most)).astype(np.uint8)
