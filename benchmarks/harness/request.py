"""The HTTP requests to send, as bytes."""

import json
from collections.abc import Sequence
from typing import Literal

Body = Literal["multipart", "raw", "batch"]

BATCH_PICTURES = 32
"""Pictures in one request to /predict/batch."""

_BOUNDARY = b"----imageclass-benchmark-7MA4YWxkTrZu0gW"
_FORM = b"multipart/form-data; boundary=" + _BOUNDARY


def multipart_post(picture: bytes) -> bytes:
    """Return a request with a picture in a form, as curl -F sends it."""
    return _post(b"/predict", _FORM, _form([picture], field=b"file"))


def raw_post(picture: bytes, path: str = "/predict") -> bytes:
    """Return a request with a picture as the whole body."""
    return _post(path.encode(), b"image/" + _kind(picture), picture)


def batch_post(pictures: Sequence[bytes]) -> bytes:
    """Return a request with pictures in one form for /predict/batch."""
    return _post(b"/predict/batch", _FORM, _form(pictures, field=b"files"))


def batches(pictures: Sequence[bytes]) -> list[bytes]:
    """Return requests with BATCH_PICTURES each that send every picture, starting over at the end of the pictures."""
    starts = range(0, max(len(pictures), 1), BATCH_PICTURES)
    return [batch_post([pictures[(start + row) % len(pictures)] for row in range(BATCH_PICTURES)]) for start in starts]


def json_post(path: str, message: object) -> bytes:
    """Return a request with a message as JSON."""
    return _post(path.encode(), b"application/json", json.dumps(message, separators=(",", ":")).encode())


def tensor_post(path: str, tensor: dict[str, object], data: bytes) -> bytes:
    """Return an Open Inference Protocol request with one binary tensor, whose answer is to be binary, too."""
    sent = {**tensor, "parameters": {"binary_data_size": len(data)}}
    message = json.dumps({"inputs": [sent], "parameters": {"binary_data_output": True}}).encode()
    length = b"application/octet-stream\r\nInference-Header-Content-Length: %d" % len(message)
    return _post(path.encode(), length, message + data)


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
