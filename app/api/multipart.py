"""Split a multipart/form-data body into its parts (RFC 7578, with the framing of RFC 2046, section 5.1.1).

The whole body is at hand, within the upload limit, so each part is found by searching for the delimiter. For a small
picture that is most of the difference to python-multipart's streaming parser, with which a whole request, decoding and
inference included, took 1.3 times the CPU (docs/benchmarks.md). It knows nothing of requests or pictures.
"""

import re
from typing import NamedTuple

from app.errors import MalformedRequest

_MAX_HEADER_BYTES = 8 * 1024
# RFC 2046: 1 to 70 characters of this alphabet, not ending in a space; quoted where it holds one that a token may not.
_BOUNDARY = re.compile(
    r"multipart/form-data\s*(?:;[^\"]*?)?;\s*boundary="
    r"(?:\"([\w'()+,./:=? -]{0,69}[\w'()+,./:=?-])\"|([\w'+.-]{1,70}))\s*(?:;|$)",
    re.ASCII | re.IGNORECASE,
)
# What every common client writes, found in one step; whatever else the grammar allows goes the long way.
_PLAIN_PART = re.compile(
    rb"content-disposition: form-data; name=\"([^\"\\\r]*)\"(?:; filename=\"([^\"\\\r]*)\")?(?:\r\n|$)", re.IGNORECASE
)
_DISPOSITION = re.compile(rb"content-disposition:[ \t]*form-data[ \t]*((?:;.*)?)$", re.IGNORECASE)
_PARAMETER = re.compile(rb';[ \t]*([A-Za-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_ESCAPED = re.compile(rb"\\(.)")


class Part(NamedTuple):
    """One field of a form: its name, the file name where the client gave one, and its bytes."""

    name: str
    filename: str | None
    data: bytes


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a multipart/form-data Content-Type names. Raises MalformedRequest."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise MalformedRequest(
            "The multipart Content-Type names no valid boundary; let the HTTP client set that header."
        )
    return (found[1] or found[2]).encode("ascii")


def split_form(body: bytes, boundary: bytes, *, max_parts: int) -> list[Part]:
    """Return the parts of a form in order. Raises MalformedRequest where the body breaks the framing, or for more."""
    delimiter = b"\r\n--" + boundary
    parts: list[Part] = []
    # The first delimiter may stand at the very beginning, without the line break that is part of all others.
    position = len(delimiter) - 2 if body.startswith(delimiter[2:]) else _after(body, delimiter, 0)
    while body[position : position + 2] != b"--":
        start = body.find(b"\r\n", position, position + _MAX_HEADER_BYTES)
        if start < 0 or body[position:start].strip(b" \t"):
            raise MalformedRequest("The multipart body is broken: a boundary is not followed by a line break.")
        # A part without any header has its empty line at once.
        header_end = body.find(b"\r\n\r\n", start, start + 2 + _MAX_HEADER_BYTES)
        if header_end < 0:
            raise MalformedRequest(
                f"The multipart body is broken: a part's headers do not end within {_MAX_HEADER_BYTES:,} bytes."
            )
        if len(parts) == max_parts:
            raise MalformedRequest(f"The form has more than {max_parts} parts. Send the pictures alone, or fewer.")
        position = _after(body, delimiter, header_end + 4)
        parts.append(_part(body[start + 2 : header_end], body[header_end + 4 : position - len(delimiter)]))
    return parts


def _after(body: bytes, delimiter: bytes, start: int) -> int:
    """Return the position after the next delimiter: one followed by "--", a blank or a line break, not by more text."""
    while (found := body.find(delimiter, start)) >= 0:
        end = found + len(delimiter)
        if body[end : end + 2] in (b"--", b"\r\n") or body[end : end + 1] in (b" ", b"\t"):
            return end
        start = end
    raise MalformedRequest("The multipart body ends before its closing boundary.")


def _part(headers: bytes, data: bytes) -> Part:
    plain = _PLAIN_PART.match(headers)
    if plain is not None:
        return Part(_text(plain[1]), None if plain[2] is None else _text(plain[2]), data)
    for line in headers.split(b"\r\n"):
        disposition = _DISPOSITION.match(line)
        if disposition is not None:
            parameters = {
                name.lower(): _ESCAPED.sub(rb"\1", quoted) if quoted else token
                for name, quoted, token in _PARAMETER.findall(disposition[1])
            }
            filename = parameters.get(b"filename")
            return Part(_text(parameters.get(b"name", b"")), None if filename is None else _text(filename), data)
    raise MalformedRequest("The multipart body is broken: a part has no Content-Disposition: form-data.")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
