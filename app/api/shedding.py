"""Recognise whole requests without parsing them: under overload, what is refused must cost little.

It recognises only what it can be sure of: a plain `POST /predict` that came in one piece, with nothing behind it.
"""

import re

_BEGINNINGS = (b"POST /predict HTTP/1.1\r\n", b"POST /predict?")
_MOST_HEAD_BYTES = 2048
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})(?=\r\n)")
# What changes how the request is framed or answered is for the parser.
_SPECIAL = re.compile(
    rb"\r\n(?:transfer-encoding|connection:(?! ?keep-alive\r)|expect|upgrade|origin|x-request-id|[ \t])"
)


def is_whole_plain_request(data: bytes) -> bool:
    """Say whether the data are one plain request to /predict, from its first byte to its last."""
    if not data.startswith(_BEGINNINGS):
        return False
    end = data.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
    if end < 0:
        return False
    head = data[: end + 2].lower()
    lengths = _LENGTH.findall(head)
    return len(lengths) == 1 and len(data) == end + 4 + int(lengths[0]) and _SPECIAL.search(head) is None
