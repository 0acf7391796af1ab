r"""Split a multipart/form-data body into its parts (RFC 7578, with the framing of RFC 2046, section 5.1.1).

The whole body is in memory, within the upload limit, so each part is found by searching for the delimiter. With
python-multipart's streaming parser, a whole request with a small picture, decoding and inference included, took 1.3
times the CPU (docs/explanation/benchmarks.md). This module knows nothing of requests or pictures.

Clients agree on the framing, but not on how to write names and file names. The rules:

- Parameters may come in any order, with blanks around ";" and "=", and over several lines. Unknown ones are ignored;
  a known one that is given twice is an error, because readers differ on which counts.
- A quoted value ends at the first quotation mark followed by ";" or the end of the header, unless a backslash escapes
  it. Browsers, curl and Python's requests send a backslash as it is, Go, httpx and older curl double it: if every
  backslash of a value stands before a backslash or a quotation mark, the sender escapes, and both are unescaped; else
  a backslash is a character of the name, as in "C:\dir\x.png". A name is never shortened to its last part.
- In a quoted value %22, %0D and %0A are a quotation mark, CR and LF, which is how browsers write them; any other
  percent sign is itself.
- A parameter with an asterisk (RFC 8187: filename*=utf-8''x.png) takes precedence over the plain one if it can be
  decoded.
- A boundary has up to 70 printable ASCII characters; unquoted, neither blanks nor quotation marks, backslashes or ";".
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from app.errors import MalformedRequest

_MAX_HEADER_BYTES = 8 * 1024
_MEDIA_TYPE = re.compile(r"multipart/form-data(?![^\s;,])", re.IGNORECASE)
# The forms that common clients write, matched in one step; others take the slower path.
_PLAIN_TYPE = re.compile(r"multipart/form-data; boundary=([A-Za-z0-9_-]{1,70})")
_PLAIN_PART = re.compile(
    rb"content-disposition: form-data; name=\"([^\"\\\r%]*)\"(?:; filename=\"([^\"\\\r%]*)\")?(?:\r\n(?![ \t])|\Z)",
    re.IGNORECASE,
)
_QUOTED_BOUNDARY = re.compile(r"[ -~]{0,69}[!-~]")
_UNQUOTED_BOUNDARY = re.compile(r"[!#-\[\]-~]{1,70}")
_AFTER_DELIMITER = re.compile(rb"(?=--|\r\n|[ \t])")
_FOLD = re.compile(rb"\r\n[ \t]+")
_DISPOSITION = re.compile(rb"content-disposition[ \t]*:[ \t]*form-data[ \t]*((?:;.*)?)", re.IGNORECASE | re.DOTALL)
_PARAMETER = re.compile(
    r""";[ \t]*([^\s;="]+)[ \t]*=[ \t]*
    (
        "(?:[^"\\]|\\.)*"(?=[ \t]*(?:;|\Z))  # escaped as the grammar has it
        | ".*?"(?=[ \t]*(?:;|\Z))              # not escaped
        | [^;]*
    )""",
    re.DOTALL | re.VERBOSE,
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED_QUOTE = re.compile(r'\\(")')
_EVERY_BACKSLASH_ESCAPES = re.compile(r"(?:[^\\]|\\[\\\"])*")
_PERCENT_ENCODED = re.compile(r"%(22|0D|0A)")
_EXTENDED = re.compile(r"(utf-8|iso-8859-1|us-ascii)'[^']*'((?:[^%]|%[0-9a-f]{2})*)", re.IGNORECASE | re.DOTALL)


class Part(NamedTuple):
    """One field of a form: its name, the file name if the client gave one, and its bytes."""

    name: str
    filename: str | None
    data: bytes


def is_form(content_type: str) -> bool:
    """Say whether a Content-Type is that of a form."""
    return _MEDIA_TYPE.match(content_type) is not None


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a form's Content-Type names. Raises MalformedRequest."""
    plain = _PLAIN_TYPE.fullmatch(content_type)
    if plain is not None:
        return plain[1].encode("ascii")
    value = _parameters(content_type, ("boundary",), "The multipart Content-Type").get("boundary", "")
    if value.startswith('"'):
        boundary = _QUOTED_BOUNDARY.fullmatch(_QUOTED_PAIR.sub(r"\1", value[1:-1]))
    else:
        boundary = _UNQUOTED_BOUNDARY.fullmatch(value)
    if boundary is None:
        raise MalformedRequest(
            "The multipart Content-Type names no valid boundary; let the HTTP client set that header."
        )
    return boundary[0].encode("ascii")


def split_form(body: bytes, boundary: bytes, *, max_parts: int) -> list[Part]:
    """Return the parts of a form in order. Raises MalformedRequest for broken framing or too many parts."""
    delimiter = b"\r\n--" + boundary
    parts: list[Part] = []
    # The first delimiter may be at the very beginning, without the line break that belongs to all others.
    position = len(delimiter) - 2 if body.startswith(delimiter[2:]) else _after(body, delimiter, 0)
    while body[position : position + 2] != b"--":
        start = body.find(b"\r\n", position, position + _MAX_HEADER_BYTES)
        if start < 0 or body[position:start].strip(b" \t"):
            raise MalformedRequest("The multipart body is broken: a boundary is not followed by a line break.")
        # A part without headers begins with its empty line.
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
    """Return the position after the next delimiter, which is followed by "--", a blank or a line break."""
    found = body.find(delimiter, start)
    if found >= 0:
        end = found + len(delimiter)
        if _AFTER_DELIMITER.match(body, end) is not None:
            return end
        # One body may have millions of these: do not examine them one by one.
        whole = re.compile(re.escape(delimiter) + _AFTER_DELIMITER.pattern).search(body, end)
        if whole is not None:
            return whole.end()
    raise MalformedRequest("The multipart body ends before its closing boundary.")


def _part(headers: bytes, data: bytes) -> Part:
    plain = _PLAIN_PART.match(headers)
    if plain is not None:
        return Part(_text(plain[1]), None if plain[2] is None else _text(plain[2]), data)
    for line in _FOLD.sub(b" ", headers).split(b"\r\n"):
        disposition = _DISPOSITION.fullmatch(line)
        if disposition is not None:
            names = ("name", "name*", "filename", "filename*")
            found = _parameters(disposition[1].decode("latin-1"), names, "A part's Content-Disposition")
            return Part(_name(found, "name") or "", _name(found, "filename"), data)
    raise MalformedRequest("The multipart body is broken: a part has no Content-Disposition: form-data.")


def _parameters(header: str, wanted: Collection[str], where: str) -> dict[str, str]:
    """Return the known parameters of a header by name. A quoted value keeps its quotation marks and escapes.

    The header is decoded as latin-1, as HTTP headers are. Raises MalformedRequest.
    """
    found: dict[str, str] = {}
    for parameter in _PARAMETER.finditer(header):
        name, value = parameter[1].lower(), parameter[2].rstrip(" \t")
        if value.startswith('"') and not value.endswith('"', 1):
            raise MalformedRequest(f"{where} has a quotation mark that is not closed, in '{name[:40]}'.")
        if name in wanted:
            if name in found:
                raise MalformedRequest(f"{where} has the parameter '{name}' twice. Send it once.")
            found[name] = value
    return found


def _name(parameters: Mapping[str, str], parameter: str) -> str | None:
    """Return the decoded value of a parameter, None if it is missing."""
    extended = _extended(parameters.get(f"{parameter}*", ""))
    if extended is not None:
        return extended
    value = parameters.get(parameter)
    if value is None or not value.startswith('"'):
        return value and _text(value.encode("latin-1"))
    value = value[1:-1]
    escaped = _QUOTED_PAIR if _EVERY_BACKSLASH_ESCAPES.fullmatch(value) else _ESCAPED_QUOTE
    value = escaped.sub(r"\1", value)
    value = _PERCENT_ENCODED.sub(lambda found: chr(int(found[1], 16)), value)
    return _text(value.encode("latin-1"))


def _extended(value: str) -> str | None:
    """Return the decoded extended value (RFC 8187), None if it cannot be decoded."""
    found = _EXTENDED.fullmatch(value.strip('"'))
    if found is None:
        return None
    try:
        return unquote_to_bytes(found[2].encode("latin-1")).decode(found[1])
    except UnicodeDecodeError:
        return None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
