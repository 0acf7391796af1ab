"""Read the head of a request, its request line and headers, strictly by RFC 9112.

llhttp checks the grammar of the bytes. This module rejects requests that llhttp accepts and a server must not (RFC 9110
and 9112): other versions, several hosts or none, unsupported transfer codings, invalid targets. llhttp gets the head
alone, so it never decides the length of a body. Nothing here does input or output.
"""

import re
from functools import lru_cache
from urllib.parse import unquote

import httptools

from app.errors import HeadersTooLarge, MalformedRequest, UnsupportedHttpVersion, UnsupportedTransferCoding

_END = b"\r\n\r\n"
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/(?:[02-9]|1\.[2-9])")  # anything may follow
_LINE_BREAK = b"\r\n"
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_MOST_LENGTH_DIGITS = 20
"""More leading zeros are valid, but a reader that stops at this many digits sees another length."""
_SINGLE = {b"host": "Host", b"content-length": "Content-Length", b"transfer-encoding": "Transfer-Encoding"}
_REASONS = {
    "Invalid method encountered": "it does not begin with a method of HTTP",
    "Duplicate Content-Length": "it has two Content-Length headers",
    "Content-Length can't be present with Transfer-Encoding": "it has both Content-Length and Transfer-Encoding",
    "Transfer-Encoding can't be present with Content-Length": "it has both Content-Length and Transfer-Encoding",
    "Invalid character in Content-Length": "its Content-Length is not a number",
    "Empty Content-Length": "its Content-Length is empty",
    "Content-Length overflow": "its Content-Length is too large",
    "Request has invalid `Transfer-Encoding`": "its Transfer-Encoding does not end in 'chunked'",
    "Invalid `Transfer-Encoding` header value": "its Transfer-Encoding has something after 'chunked'",
    "Unexpected whitespace after header value": "a header continues on a second line",
    "Invalid header token": "a header name has a forbidden character, or no colon after it",
    "Invalid header value char": "a header value has a control character",
}
"""llhttp's messages, reworded to name the part of the request that is wrong."""


class Head:
    """A valid request line and headers, and the framing that they imply."""

    __slots__ = (
        "body_length",
        "expects_continue",
        "fields",
        "headers",
        "is_1_0",
        "keep_alive",
        "method",
        "path",
        "query",
    )

    method: bytes
    path: bytes
    """As sent, with its percent-encoding; `*` means the server as a whole."""
    query: bytes
    headers: list[tuple[bytes, bytes]]
    """In the order sent; names in lower case."""
    fields: dict[bytes, bytes]
    """Headers by name; the first if a header is repeated."""
    is_1_0: bool
    keep_alive: bool
    """Whether the client allows another request on this connection."""
    body_length: int | None
    """In bytes; None if the body is chunked."""
    expects_continue: bool

    @property
    def decoded_path(self) -> str:
        path = self.path.decode("ascii")
        return unquote(path) if "%" in path else path


class HeadReader:
    """Read one head of at most `limit` bytes, in however many pieces it arrives. Make a new reader for each request."""

    __slots__ = ("_empty_line_is_open", "_is_complete", "_limit", "_parser", "_seen", "headers")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen = b""
        self._empty_line_is_open = False  # a carriage return came, and its line feed has not
        self.headers: list[tuple[bytes, bytes]] = []
        """The headers so far; names in lower case."""
        self._is_complete = False
        self._parser = httptools.HttpRequestParser(self)

    @property
    def has_begun(self) -> bool:
        """Whether the request line has begun to arrive. Empty lines before it do not count (RFC 9112, section 2.2)."""
        return bool(self._seen)

    @property
    def asks_for_head(self) -> bool:
        """Whether the request is HEAD, as far as it has arrived: its answer has no body."""
        return self._seen.startswith(b"HEAD ")

    def read(self, data: bytes, position: int = 0) -> int | None:
        """Read on in `data` from `position`, and return where the head ends, or None if it continues in the next piece.

        Raises HeadersTooLarge, UnsupportedHttpVersion, UnsupportedTransferCoding or MalformedRequest.
        """
        before = self._seen
        if not before and (self._empty_line_is_open or data[position] in _LINE_BREAK):
            position = self._skip_empty_lines(data, position)
            if position == len(data):
                return None
        tail = before[-3:]  # the end may be split between two pieces
        if tail:
            found = (tail + data[position : position + self._limit]).find(_END)
            end = position + found + len(_END) - len(tail)
        else:
            found = data.find(_END, position, position + self._limit)
            end = found + len(_END)
        is_last = found >= 0
        if not is_last:
            end = len(data)
        piece = data[position:end]
        self._seen = seen = before + piece if before else piece
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # RFC 9110, section 7.8: a server may ignore Upgrade, and this one does
        except httptools.HttpParserError as exc:
            raise _rejection(seen, str(exc)) from None
        if len(seen) > self._limit - (not is_last):
            limit = f"{self._limit:,} bytes"
            raise HeadersTooLarge(f"The request line and headers are longer than {limit}. Send fewer, or shorter ones.")
        if self._is_complete != is_last:
            raise _rejection(seen, "its headers do not end as they should")
        if not is_last:
            return None
        del self._parser  # break the reference cycle, so that both are freed at once
        return end

    def head(self) -> Head:
        """Return the head after `read` has found its end. Raises as `read` does."""
        line = _LINE.match(self._seen)
        if line is None:
            raise _rejection(self._seen, "its first line is not 'METHOD /path HTTP/1.1'")
        headers = self.headers
        fields = dict(headers)
        if len(fields) != len(headers):
            fields = _merged(headers)
        head = Head()
        head.method, target, minor = line.groups()
        head.headers, head.fields = headers, fields
        head.is_1_0 = minor == b"0"
        host = fields.get(b"host")
        if host is None:
            if not head.is_1_0:
                raise _rejection(b"", "it has no Host header")
        elif not _is_host(host):
            raise _rejection(b"", "its Host header is not a host name, or a name and a port")
        connection = fields.get(b"connection")
        # HTTP/1.0 keep-alive would have to be negotiated; the connection is closed instead.
        head.keep_alive = not head.is_1_0 and (connection is None or not _has_token(connection, b"close"))
        expect = fields.get(b"expect")
        head.expects_continue = expect is not None and not head.is_1_0 and _has_token(expect, b"100-continue")
        head.body_length = _body_length(fields, is_1_0=head.is_1_0)
        if target[:1] != b"/" or head.method == b"CONNECT":
            target = _origin_form(head, target)
        if b"#" in target:  # clients must not send the fragment
            target = target.partition(b"#")[0]
        head.path, _, head.query = target.partition(b"?")
        return head

    def _skip_empty_lines(self, data: bytes, position: int) -> int:
        if self._empty_line_is_open:
            self._empty_line_is_open = False
            if data[position] != _LINE_BREAK[1]:
                raise _rejection(b"", "it begins with half a line break")
            position += 1
        while data.startswith(_LINE_BREAK, position):
            position += 2
        rest = data[position : position + 2]
        if rest == _LINE_BREAK[:1]:
            self._empty_line_is_open = True
            position += 1
        elif rest and rest[0] in _LINE_BREAK:
            raise _rejection(b"", "it begins with half a line break")
        return position

    # Callbacks of llhttp

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))  # llhttp does not strip tabs

    def on_headers_complete(self) -> None:
        self._is_complete = True


def _rejection(seen: bytes, reason: str) -> MalformedRequest | UnsupportedHttpVersion:
    if _OTHER_VERSION.match(seen):
        return UnsupportedHttpVersion("This service speaks HTTP/1.1. Send the request in that version.")
    reason = _REASONS.get(reason, reason[:1].lower() + reason[1:])
    return MalformedRequest(f"The request is not valid HTTP/1.1: {reason}.")


def _merged(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name: combine lists (RFC 9110, section 5.3), and reject repeats of single headers."""
    fields, names = dict(reversed(headers)), [name for name, _ in headers]
    for name, spelling in _SINGLE.items():
        if names.count(name) > 1:
            raise _rejection(b"", f"it has two {spelling} headers")
    for name in (b"connection", b"expect"):
        if names.count(name) > 1:
            fields[name] = b",".join(value for other, value in headers if other == name)
    return fields


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _has_token(value: bytes, token: bytes) -> bool:
    return token in [each.strip(b" \t") for each in value.lower().split(b",")]


def _body_length(fields: dict[bytes, bytes], *, is_1_0: bool) -> int | None:
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if is_1_0:
            raise _rejection(b"", "HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            sent = coding.decode("latin-1")
            raise UnsupportedTransferCoding(
                f"The body's Transfer-Encoding is '{sent}'; send it as it is, or 'chunked'."
            )
        return None
    length = fields.get(b"content-length")
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _MOST_LENGTH_DIGITS:
        raise _rejection(b"", "its Content-Length is not a number of at most 20 digits")
    return int(length)


def _origin_form(head: Head, target: bytes) -> bytes:
    """Return the path and query of a target that does not begin with a slash (RFC 9112, section 3.2).

    The host of an absolute address replaces that of the Host header.
    """
    if target == b"*" and head.method == b"OPTIONS":
        return target
    if head.method == b"CONNECT":
        raise _rejection(b"", "this service is not a proxy, and takes no CONNECT")
    scheme, _, rest = target.partition(b"://")
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
    if scheme.lower() not in {b"http", b"https"} or not authority or not _is_host(authority) or authority[-1:] == b":":
        raise _rejection(b"", "its target is neither a path nor an http:// address")
    host = b"host", authority
    head.headers[:] = [host, *(header for header in head.headers if header[0] != b"host")]
    head.fields[b"host"] = authority
    path = rest[len(authority) :]
    return path if path[:1] == b"/" else b"/" + path
