"""Undo the Content-Encoding of a request's body while it arrives (RFC 9110, section 8.4).

A body is inflated in slices. Between slices the reader can stop a compression bomb at the byte limit, and let the event
loop do other work.
"""

import zlib
from collections.abc import Iterator
from typing import TypeAlias

from starlette.datastructures import Headers

from app.errors import MalformedRequest, UnsupportedMediaType

SLICE_BYTES = 64 * 1024
"""Inflate at most this much at once."""

_MAX_MEMBERS = 10_000
"""Accept at most this many streams in a gzip body: even an empty one costs time."""
_GZIP, _ZLIB, _RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_GZIP_BEGINS = 0x1F
_ZLIB_METHOD = 8
"""The low four bits of a zlib stream's first byte. A raw deflate stream has them only if its padding is not zero."""
_ADVICE = "Send it whole, in the coding that its Content-Encoding names."

_Stream: TypeAlias = "zlib._Decompress"  # noqa: SLF001 - what zlib.decompressobj returns has no public name


def content_encoding(headers: Headers) -> str:
    """Return the value of Content-Encoding, whose header may be repeated."""
    return ",".join(headers.getlist("content-encoding"))


def reject_coding(encoding: str) -> None:
    """Raise UnsupportedMediaType if a body has a content coding."""
    if codings := _codings(encoding):
        raise UnsupportedMediaType(
            f"{_sent(codings)}; send pictures as they are, without it. Their formats are compressed already.",
            accept_encoding="identity",
        )


def inflater_of(encoding: str) -> "Inflater | None":
    """Return the inflater of a body, None if it is not compressed. Raises UnsupportedMediaType."""
    match _codings(encoding):
        case []:
            return None
        case ["gzip" | "x-gzip"]:
            return Inflater("gzip")
        case ["deflate"]:
            return Inflater("deflate")
        case codings:
            raise UnsupportedMediaType(
                f"{_sent(codings)}; send it as gzip or deflate, or as it is, without Content-Encoding.",
                accept_encoding="gzip, deflate",
            )


def _codings(encoding: str) -> list[str]:
    codings = (coding.strip(" \t").lower() for coding in encoding.split(","))
    return [coding for coding in codings if coding not in ("", "identity")]


def _sent(codings: list[str]) -> str:
    return f"The body's Content-Encoding is '{', '.join(codings)[:80]}'"


class Inflater:
    """Inflates one body: "gzip" with one or more streams, or "deflate" with or without zlib's frame."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream: _Stream | None = None
        self._members = 0

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Inflate the next bytes of the body, and yield the content in slices. Some slices may be empty.

        Raises MalformedRequest if they cannot be inflated.
        """
        for start in range(0, len(data), SLICE_BYTES):
            rest = data[start : start + SLICE_BYTES]
            while rest:
                stream = self._stream
                if stream is None or stream.eof:
                    stream = self._stream = self._next_stream(rest)
                piece = self._decompress(stream, rest)
                yield piece
                # All input may be consumed before all output is written.
                while len(piece) == SLICE_BYTES and not (stream.unconsumed_tail or stream.eof):
                    piece = self._decompress(stream, b"")
                    yield piece
                rest = stream.unconsumed_tail or stream.unused_data

    def end(self) -> None:
        """Raise MalformedRequest if the body is truncated."""
        if self._stream is None or not self._stream.eof:
            raise self._invalid("it is cut off")

    def _decompress(self, stream: _Stream, data: bytes) -> bytes:
        try:
            return stream.decompress(data, SLICE_BYTES)
        except zlib.error as exc:
            raise self._invalid(f"zlib says '{exc}'") from exc

    def _next_stream(self, data: bytes) -> _Stream:
        if self._stream is not None and (self._coding == "deflate" or data[0] != _GZIP_BEGINS):
            raise self._invalid("other bytes follow its end")
        if self._coding == "deflate":
            return zlib.decompressobj(_ZLIB if data[0] & 0x0F == _ZLIB_METHOD else _RAW_DEFLATE)
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise self._invalid(f"it has more than {_MAX_MEMBERS:,} streams")
        return zlib.decompressobj(_GZIP)

    def _invalid(self, reason: str) -> MalformedRequest:
        return MalformedRequest(f"The body is not valid {self._coding}: {reason}. {_ADVICE}")
