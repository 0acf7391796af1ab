"""Decode the first picture of a GIF on a transparent screen.

Pixels that it does not cover, or leaves transparent, show the background.

Only that picture's own blocks are given to Pillow: comments, later pictures and how these replace each other do not
affect it.
"""

import struct

import numpy as np
from PIL import UnidentifiedImageError

from app.contract.formats.pixels import Pixels, damaged, open_with_pillow
from app.errors import UndecodableImage

MAX_BLOCKS = 65_536
"""Blocks before the first picture, of comments and the like."""

_NAME = "GIF"
_TRANSPARENT = 1


def decode_gif(gif: bytes) -> Pixels:
    """Return the pixels of the first picture on its screen, RGB or RGBA. Raises UndecodableImage."""
    width, height = struct.unpack_from("<HH", gif, 6)
    try:
        control, at = _first_picture(gif)
        left, top, own_width, own_height, flags = struct.unpack_from("<HHHHB", gif, at + 1)
    except (struct.error, IndexError):
        raise damaged(_NAME) from None
    if not own_width or not own_height or left + own_width > width or top + own_height > height:
        raise damaged(_NAME)
    screen = gif[:6] + struct.pack("<HH", own_width, own_height) + gif[10 : 13 + _table_bytes(gif[10])]
    picture = b"," + struct.pack("<HHHHB", 0, 0, own_width, own_height, flags) + gif[at + 10 :]
    try:
        decoded = open_with_pillow(screen + picture, "GIF", _NAME)
    except UnidentifiedImageError:
        raise damaged(_NAME) from None
    colours = np.asarray(decoded.convert("RGB"))
    is_transparent = bool(control[:1] and control[0] & _TRANSPARENT)
    if not is_transparent and (own_width, own_height) == (width, height):
        return Pixels(colours)
    indices = np.asarray(decoded)
    rgba = np.zeros((height, width, 4), np.uint8)
    own = rgba[top : top + own_height, left : left + own_width]
    own[:, :, :3] = colours
    own[:, :, 3] = np.where(indices == control[3], 0, 255) if is_transparent else 255
    return Pixels(rgba)


def _first_picture(gif: bytes) -> tuple[bytes, int]:
    """Return the content of the control block before the first picture, and the position of the picture's descriptor.

    Raises IndexError if the file ends before.
    """
    position = 13 + _table_bytes(gif[10])
    control = b""
    blocks = 0
    while gif[position] == 0x21:  # an extension
        if gif[position + 1] == 0xF9 and gif[position + 2] == 4:
            control = gif[position + 3 : position + 7]
        position += 2
        blocks += 1
        while size := gif[position]:
            position += 1 + size
            blocks += 1
        position += 1
        if blocks > MAX_BLOCKS:
            raise UndecodableImage(f"The GIF file has more than {MAX_BLOCKS:,} blocks. Save it again.")
    if gif[position] != 0x2C:
        raise IndexError
    return control, position


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
