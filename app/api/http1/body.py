"""Read the body of a request by its length or in chunks (RFC 9112, sections 6 and 7), without input or output."""

import re

from app.errors import HeadersTooLarge, MalformedRequest

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"(?!(?i:Content-Length|Transfer-Encoding):)[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_LINE_BREAK = b"\r\n"
_FRAMING_PER_BYTE = 8
"""Bytes of framing allowed for each byte of content of a chunked body, besides the limit on headers."""
_LINES_AT_ONCE = 1000
"""Read at most this many lines at once: a few milliseconds of work. One read may hold a hundred times as many."""


class BodyByLength:
    """A body of `length` bytes."""

    __slots__ = ("_left", "is_complete")

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_complete = not length

    def read(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Return the content in `data` from `position` on, and the position after it."""
        end = min(len(data), position + self._left)
        self._left -= end - position
        self.is_complete = not self._left
        return data if not position and end == len(data) else data[position:end], end


class BodyInChunks:
    """A chunked body. Its extensions and trailers are checked and dropped; `limit` bounds their bytes.

    `limit` also bounds each line, because a line is buffered until it ends.

    A trailer may not say how long a body is (RFC 9110, section 6.5.1), because another reader might believe it.
    """

    __slots__ = ("_content", "_framing", "_in_trailers", "_left", "_limit", "_line", "is_complete")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = b""  # the beginning of a line that has not ended
        self._left = 0  # of this chunk, with the line break after its content
        self._content = 0
        self._framing = 0
        self._in_trailers = False
        self.is_complete = False

    def read(self, data: bytes, position: int) -> tuple[bytes, int]:
        """Return the content in `data` from `position` on, and the position after it.

        It may stop early, even within a body, to give other connections a turn before the rest is read.
        Raises MalformedRequest, or HeadersTooLarge for extensions and trailers that are too long.
        """
        pieces: list[bytes] = []
        size, lines = len(data), 0
        while position < size and not self.is_complete and lines < _LINES_AT_ONCE:
            if self._left > 2:
                end = min(size, position + self._left - 2)
                pieces.append(data[position:end])
                self._content += end - position
                self._left -= end - position
                position = end
            else:
                position = self._read_line(data, position)
                lines += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), position

    def _read_line(self, data: bytes, position: int) -> int:
        # A line break that was split between two pieces is whole in `line`.
        end = data.find(b"\n", position)
        piece = data[position:] if end < 0 else data[position : end + 1]
        self._framing += len(piece)
        if self._framing > self._limit + _FRAMING_PER_BYTE * self._content:
            raise self._too_long()
        line = self._line = self._line + piece
        if self._left and not _LINE_BREAK.startswith(line):  # reported before the line ends: the rest may be content
            raise _broken("a chunk is longer than its size says")
        if len(line) > self._limit:
            raise self._too_long()
        if end < 0:
            return len(data)
        if not line.endswith(_LINE_BREAK):
            raise _broken("a line ends without a carriage return")
        self._line = b""
        self._take(line[:-2])
        return end + 1

    def _take(self, line: bytes) -> None:
        if self._left:  # the line break after a chunk's content
            self._left = 0
        elif self._in_trailers:
            if not line:
                self.is_complete = True
            elif _TRAILER.fullmatch(line) is None:
                raise _broken("a trailer is not 'name: value', or says how long a body is")
        else:
            found = _SIZE.fullmatch(line)
            if found is None:
                raise _broken("a chunk's size is not a hexadecimal number")
            size = int(found[1], 16)
            self._in_trailers = not size
            self._left = size + 2 if size else 0

    def _too_long(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"The chunk extensions and trailers are longer than {self._limit:,} bytes. Send fewer, or none."
        )


def _broken(reason: str) -> MalformedRequest:
    return MalformedRequest(f"The chunked body is broken: {reason}.")
