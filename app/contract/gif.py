"""Count how often the code table of a GIF's first picture is cleared, without decoding it.

Each clearing costs OpenCV three microseconds, and the file as little as three bits: 10 MB cost it minutes.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from app.errors import UndecodableImage

MAX_BLOCKS = 65_536
"""Blocks before the first picture, of comments and the like."""

_FREE_CLEARINGS = 256
_BYTES_PER_CLEARING = 256  # an encoder clears after some 4,000 codes, and one that does not compress after 254
_FIRST_STEP, _LARGEST_STEP = 64, 8192


def check_gif(gif: bytes) -> None:
    """Raise UndecodableImage for a GIF that clears its code table over and over, or has very many blocks."""
    try:
        smallest, codes = _first_picture(gif)
    except IndexError:
        return  # it is cut off: the decoder says so
    if not 1 <= smallest <= 11 or len(codes) < 3:
        return
    allowed = _FREE_CLEARINGS + len(codes) // _BYTES_PER_CLEARING
    if len(codes) * 8 // (smallest + 1) > allowed and _clearings(codes, smallest, allowed) > allowed:
        raise UndecodableImage("The GIF file clears its code table over and over. Save it again.")


def _first_picture(gif: bytes) -> tuple[int, bytes]:
    """Return the code size of the first picture and its codes. Raises IndexError where the file ends before."""
    position = 13 + _table_bytes(gif[10])
    blocks = 0
    while gif[position] == 0x21:  # an extension
        position += 2
        while size := gif[position]:
            position += 1 + size
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise UndecodableImage(f"The GIF file has more than {MAX_BLOCKS:,} blocks. Save it again.")
        position += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise UndecodableImage(f"The GIF file has more than {MAX_BLOCKS:,} blocks. Save it again.")
    if gif[position] != 0x2C:
        raise IndexError
    position += 10 + _table_bytes(gif[position + 9])
    smallest = gif[position]
    position += 1
    pieces = []
    while size := gif[position]:
        pieces.append(gif[position + 1 : position + 1 + size])
        position += 1 + size
    return smallest, b"".join(pieces)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _clearings(codes: bytes, smallest: int, allowed: int) -> int:
    """Return how often the table is cleared, or a number above `allowed`."""
    data = np.frombuffer(codes + b"\0\0\0", np.uint8)
    end = 8 * len(codes)
    clear = 1 << smallest
    starts, widths = _places(smallest)
    found, position, read, step = 0, 0, 0, _FIRST_STEP
    while position < end and found <= allowed:
        known = min(read, len(starts) - 1 - step)  # of a full table all codes have 12 bits
        at = position + starts[known : known + step] - starts[known]
        at = at[at < end]
        width = widths[known : known + len(at)]
        byte = at >> 3
        word = data[byte].astype(np.uint32) | data[byte + 1].astype(np.uint32) << 8
        word |= data[byte + 2].astype(np.uint32) << 16
        values = word >> (at & 7).astype(np.uint32) & ((1 << width) - 1).astype(np.uint32)
        special = np.flatnonzero((values == clear) | (values == clear + 1))
        if len(special):
            first = special[0]
            if values[first] != clear:  # the end of the picture
                break
            found += 1
            position, read, step = int(at[first] + width[first]), 0, _FIRST_STEP
        else:
            position, read = int(at[-1] + width[-1]), read + len(at)
            step = min(2 * step, _LARGEST_STEP)
    return found


@lru_cache(maxsize=12)
def _places(smallest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each code after a clearing begins, in bits, and how many it has."""
    entries = (1 << smallest) + 2 + np.maximum(0, np.arange(4096 + 2 * _LARGEST_STEP) - 1)
    widths = np.minimum(12, np.maximum(smallest + 1, np.floor(np.log2(entries)).astype(np.int64) + 1))
    return np.concatenate([[0], np.cumsum(widths)]).astype(np.int64), widths
