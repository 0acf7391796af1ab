"""Tell damage that OpenCV decodes over: a file that ends early, or whose checksums do not hold. It decodes no pixels.

Bytes changed in the middle of a JPEG leave no trace but in the picture itself, and are not found.
"""

import struct
import zlib

from app.contract.header import ImageFormat

_CUT_OFF = "ends before its picture does, and what is missing decodes as an even area"


def damage(data: bytes, image_format: ImageFormat) -> str | None:
    """Return what is wrong with an encoded picture that decodes nevertheless, as the end of a sentence, or None."""
    match image_format:
        case "jpeg":  # its last scan has to be followed by an end marker; a thumbnail inside has both before that
            return _CUT_OFF if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") else None
        case "png":
            return _png(data)
        case "bmp":
            return _CUT_OFF if struct.unpack_from("<I", data, 2)[0] > len(data) else None
        case _:
            return None


def _png(data: bytes) -> str | None:
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            return _CUT_OFF
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"is damaged: the checksum of its {kind.decode('latin-1')} part does not hold"
        if kind == b"IEND":
            return None
        position = end + 4
    return _CUT_OFF
