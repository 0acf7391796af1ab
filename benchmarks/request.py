"""The HTTP requests that are sent, each as the bytes that go over the connection."""

from collections.abc import Sequence
from typing import Literal

Body = Literal["multipart", "raw", "batch"]

BATCH_PICTURES = 32
"""Pictures in one request to /predict/batch."""

_BOUNDARY = b"----imageclass-benchmark-7MA4YWxkTrZu0gW"
_FORM = b"multipart/form-data; boundary=" + _BOUNDARY


def multipart_post(picture: bytes) -> bytes:
    """Return a picture as curl -F would send it."""
    return _post(b"/predict", _FORM, _form([picture], field=b"file"))


def raw_post(picture: bytes) -> bytes:
    """Return a picture as the whole body."""
    return _post(b"/predict", b"image/" + _kind(picture), picture)


def batch_post(pictures: Sequence[bytes]) -> bytes:
    """Return pictures in one form for /predict/batch."""
    return _post(b"/predict/batch", _FORM, _form(pictures, field=b"files"))


def batches(pictures: Sequence[bytes]) -> list[bytes]:
    """Return requests that send every picture, each with BATCH_PICTURES, starting over where the pictures end."""
    starts = range(0, max(len(pictures), 1), BATCH_PICTURES)
    return [batch_post([pictures[(start + row) % len(pictures)] for row in range(BATCH_PICTURES)]) for start in starts]


def _kind(picture: bytes) -> bytes:
    return b"png" if picture.startswith(b"\x89PNG") else b"jpeg"


def _form(pictures: Sequence[bytes], *, field: bytes) -> bytes:
    parts = []
    for picture in pictures:
        kind = _kind(picture)
        head = b'Content-Disposition: form-data; name="%b"; filename="picture.%b"\r\nContent-Type: image/%b\r\n\r\n'
        parts += [b"--%b\r\n" % _BOUNDARY, head % (field, kind, kind), picture, b"\r\n"]
    return b"".join([*parts, b"--%b--\r\n" % _BOUNDARY])


def _post(path: bytes, kind: bytes, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path, kind, len(body)) + body
