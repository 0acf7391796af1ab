"""How large a picture may be: what the service accepts by default, and what training warns of."""

from collections.abc import Callable, Mapping

from app.contract.header import ImageFormat, ImageHeader
from app.contract.structure import jpeg_coefficient_bytes
from app.errors import ImageTooLarge

MAX_PIXELS = 64_000_000
MAX_BYTES = 32 << 20
MAX_DECODING_BYTES = 400_000_000
"""What decoding one picture may take: an opaque one of MAX_PIXELS does, and one of 25 megapixels of any kind."""

_OPAQUE = 6.0  # bytes for each pixel: OpenCV decodes into 3, and hands out a copy
_WITH_ALPHA = 10.0  # 4, their copy for a moment, or what is laid over the background
_ANY = 16.0  # 16 bits and alpha, twice


def check_size(data: bytes, header: ImageHeader, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageTooLarge for a picture of more pixels than `max_pixels`, or one that takes too much memory to decode.

    The latter are of kinds whose pixels take more than the 6 bytes of an opaque one: with alpha, of 16 bits, or
    progressive without subsampled colours.
    """
    pixels = header.pixels
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"The picture has {header.width}x{header.height} pixels; "
            f"at most {max_pixels:,} are accepted. Send it smaller."
        )
    if pixels * _ANY <= MAX_DECODING_BYTES:
        return
    needed = pixels * _BYTES_PER_PIXEL[header.format](data)
    allowed = max(MAX_DECODING_BYTES, max_pixels * _OPAQUE)
    if needed > allowed:
        raise ImageTooLarge(
            f"A {header.format.upper()} of this kind with {header.width}x{header.height} pixels takes "
            f"{needed / 1e6:,.0f} MB to decode; at most {allowed / 1e6:,.0f} MB are accepted. "
            "Save it as baseline JPEG, or send it smaller."
        )


def why_too_large(data: bytes, header: ImageHeader) -> str | None:
    """Return why a service with default settings rejects a picture for its size; None if it accepts it."""
    if len(data) > MAX_BYTES:
        return f"The file has {len(data):,} bytes; at most {MAX_BYTES:,} are accepted. Send it smaller."
    try:
        check_size(data, header)
    except ImageTooLarge as exc:
        return str(exc)
    return None


def _jpeg(data: bytes) -> float:
    return max(_OPAQUE, 3 + jpeg_coefficient_bytes(data))


def _png(data: bytes) -> float:
    depth, colours = data[24], data[25]
    if depth == 16:
        return _ANY
    has_alpha = colours in (4, 6) or b"tRNS" in data[: data.find(b"IDAT")]
    return _WITH_ALPHA if has_alpha else _OPAQUE


def _webp(data: bytes) -> float:
    has_alpha = data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and data[20] & 0x10)
    return _WITH_ALPHA if has_alpha else _OPAQUE


_BYTES_PER_PIXEL: Mapping[ImageFormat, Callable[[bytes], float]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": lambda _: _OPAQUE,
    "gif": lambda _: _WITH_ALPHA,
    "tiff": lambda _: _ANY,
}
