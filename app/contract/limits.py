"""Limits on pictures: what the service accepts by default, and training warns about."""

from collections.abc import Callable, Mapping

from app.contract.header import ImageFormat, ImageHeader
from app.contract.structure import jpeg_coefficient_bytes, tiff_directory, tiff_number
from app.errors import ImageTooLarge

MAX_PIXELS = 64_000_000
MAX_BYTES = 32 << 20
MAX_DECODING_BYTES = 400_000_000
"""Bytes that decoding one picture may take: as many as an opaque JPEG or PNG of MAX_PIXELS takes, or a picture of most
other kinds at 25 megapixels."""

_TIFF_COLOURS_TAG, _TIFF_CMYK = 262, 5
_LEAST, _MOST = 6, 28  # bytes for each pixel, as measured at 25 and 64 megapixels


def check_size(data: bytes, header: ImageHeader, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageTooLarge for a picture of more pixels than `max_pixels`, or one that takes too much memory to decode.

    The bound on memory is for kinds that take more than the 6 bytes a pixel of an opaque JPEG or PNG: with alpha, of 16
    bits, progressive without subsampled colours, and formats whose decoders keep more copies.
    """
    pixels = header.pixels
    if pixels > max_pixels:
        raise ImageTooLarge(
            f"The picture has {header.width}x{header.height} pixels; "
            f"at most {max_pixels:,} are accepted. Send it smaller."
        )
    if pixels * _MOST <= MAX_DECODING_BYTES:
        return
    needed = pixels * _BYTES_PER_PIXEL[header.format](data)
    allowed = max(MAX_DECODING_BYTES, max_pixels * _LEAST)
    if needed > allowed:
        raise ImageTooLarge(
            f"This {header.format.upper()} of {header.width}x{header.height} pixels takes "
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
    return max(6, 3 + jpeg_coefficient_bytes(data))


def _png(data: bytes) -> float:
    depth, colours = data[24], data[25]
    if depth == 16:
        return 16
    return 10 if colours in (4, 6) or b"tRNS" in data[: data.find(b"IDAT")] else 6


def _webp(data: bytes) -> float:
    return 10 if data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and data[20] & 0x10) else 6


def _tiff(data: bytes) -> float:
    colours = tiff_directory(data).get(_TIFF_COLOURS_TAG)
    return _MOST if colours is not None and tiff_number(data, colours) == _TIFF_CMYK else 16


def _avif(data: bytes) -> float:
    return 16 if b"auxiliary:alpha" in data else 12


_BYTES_PER_PIXEL: Mapping[ImageFormat, Callable[[bytes], float]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": lambda _: 14,
    "gif": lambda _: 12,
    "tiff": _tiff,
    "avif": _avif,
    "heic": lambda _: 8,
}
