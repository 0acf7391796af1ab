"""Decode base64 as the clients of JSON protocols write it. It knows nothing of HTTP, and nothing of pictures.

Plain base64 is decoded directly. Only other text is examined further: protobuf's JSON has the URL-safe alphabet and no
padding, TensorFlow Serving reads line breaks and no padding, and browsers make data URLs.
"""

from binascii import a2b_base64
from typing import Any

_STANDARD = bytes.maketrans(b"-_", b"+/")
_LINE_BREAKS = b"\r\n"


def decode_base64(text: Any) -> bytes:
    """Decode base64 of either alphabet, also with line breaks or without padding, or a data URL.

    Raises ValueError, or TypeError if `text` is not a string.
    """
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return _written_otherwise(text)


def _written_otherwise(text: str) -> bytes:
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ValueError("a data URL without base64")
    data = text.encode("ascii").translate(_STANDARD, _LINE_BREAKS)
    return a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
