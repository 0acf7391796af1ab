"""Write TIFF files of any layout, from the definition of the format (TIFF 6.0), and say which pixels they show."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]
Alpha = Literal["none", "associated", "unassociated", "unspecified"]

WIDTH, HEIGHT = 37, 23
PHOTOMETRIC = {"white at 0": 0, "grey": 1, "rgb": 2, "palette": 3, "cmyk": 5, "ycbcr": 6, "cielab": 8}
_CHANNELS = {"white at 0": 1, "grey": 1, "palette": 1, "cmyk": 4}
_EXTRA = {"unspecified": 0, "associated": 1, "unassociated": 2}
_ROWS_OF_A_STRIP, _TILE = 7, 16


def _packbits(data: bytes) -> bytes:
    pieces = (data[at : at + 128] for at in range(0, len(data), 128))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def _lzw(data: bytes) -> bytes:
    """Clear the table before it grows, so that each code has 9 bits."""
    codes: list[int] = []
    for at in range(0, len(data), 250):
        codes += [256, *data[at : at + 250]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


COMPRESSIONS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, bytes),
    "packbits": (32773, _packbits),
    "lzw": (5, _lzw),
    "deflate": (8, zlib.compress),
}


@dataclass(frozen=True)
class Layout:
    """A cell of the table of layouts."""

    colours: str
    bits: int
    alpha: Alpha = "none"
    in_planes: bool = False
    in_tiles: bool = False
    compression: str = "none"
    order: Literal["<", ">"] = "<"


def layouts_of(colours: str, bits: int, alpha: Alpha) -> Iterator[Layout]:
    """Yield each way in which such pixels may lie in a file."""
    plain = Layout(colours, bits, alpha)
    several = _CHANNELS.get(colours, 3) > 1 or alpha != "none"
    for in_planes in (False, True) if several else (False,):
        for in_tiles in (False, True):
            for compression in ("none", "deflate"):
                yield replace(plain, in_planes=in_planes, in_tiles=in_tiles, compression=compression)
    yield replace(plain, compression="lzw")
    yield replace(plain, compression="packbits")
    yield replace(plain, order=">")


def file_of(layout: Layout) -> tuple[bytes, NDArray[np.float64]]:
    """Return a TIFF of that layout, and what it shows over white: (H, W, 3) levels, perhaps fractions."""
    most = (1 << layout.bits) - 1
    samples = _gradients(_CHANNELS.get(layout.colours, 3), most)
    palette = np.random.default_rng(layout.bits).integers(0, 256, (3, 1 << min(layout.bits, 16)))
    alpha = np.full((HEIGHT, WIDTH, 1), most)
    alpha[:, : WIDTH // 2] = 0
    if layout.bits > 2:
        alpha[:, WIDTH // 2 - 4 : WIDTH // 2 + 4] = most * 2 // 5
    if layout.alpha == "associated" and layout.colours != "palette":
        samples = samples * alpha // most
    shown = _shown(layout, samples, alpha, palette)
    if layout.alpha != "none":
        samples = np.concatenate([samples, alpha], axis=2)
    extra = [] if layout.alpha == "none" else [_EXTRA[layout.alpha]]
    tags = {320: palette.reshape(-1) * 257} if layout.colours == "palette" else {}
    if layout.colours == "ycbcr":
        tags[530] = np.array([1, 1])
    return tiff(samples, layout, extra=extra, tags=tags), shown


def tiff(
    samples: Samples, layout: Layout, *, extra: Sequence[int] = (), tags: dict[int, NDArray[Any]] | None = None
) -> bytes:
    """Return a TIFF of (H, W, samples); `tags` holds further ones, of 16 bits."""
    height, width, count = samples.shape
    code, compress = COMPRESSIONS[layout.compression]
    planes = np.split(samples, count, axis=2) if layout.in_planes else [samples]
    pieces = [compress(piece) for plane in planes for piece in _pieces(plane, layout)]
    shorts: dict[int, Sequence[int]] = {
        258: [layout.bits] * count,
        259: [code],
        262: [PHOTOMETRIC[layout.colours]],
        277: [count],
        284: [2 if layout.in_planes else 1],
        **{tag: [int(value) for value in values] for tag, values in (tags or {}).items()},
    }
    if extra:
        shorts[338] = extra
    offsets, body = [], b""
    for piece in pieces:
        offsets.append(8 + len(body))
        body += piece + bytes(len(piece) % 2)
    sizes = [len(piece) for piece in pieces]
    longs: dict[int, Sequence[int]] = {256: [width], 257: [height]}
    if layout.in_tiles:
        longs |= {322: [_TILE], 323: [_TILE], 324: offsets, 325: sizes}
    else:
        longs |= {273: offsets, 278: [_ROWS_OF_A_STRIP], 279: sizes}
    return _assemble(body, {**{tag: ("H", v) for tag, v in shorts.items()}, **{t: ("I", v) for t, v in longs.items()}},
                     layout.order)  # fmt: skip


def _assemble(body: bytes, tags: dict[int, tuple[str, Sequence[int]]], order: str) -> bytes:
    directory = 8 + len(body)
    further_at = directory + 2 + 12 * len(tags) + 4
    entries = further = b""
    for tag, (code, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > 4:
            value, further = struct.pack(order + "I", further_at + len(further)), further + value
        entries += struct.pack(order + "HHI", tag, 3 if code == "H" else 4, len(values)) + value.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory)
    return start + body + struct.pack(order + "H", len(tags)) + entries + bytes(4) + further


def _pieces(plane: Samples, layout: Layout) -> Iterator[bytes]:
    """Yield the strips or tiles of samples that lie together."""
    height, width, count = plane.shape
    if not layout.in_tiles:
        for top in range(0, height, _ROWS_OF_A_STRIP):
            yield _packed(plane[top : top + _ROWS_OF_A_STRIP], layout)
        return
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            part = plane[top : top + _TILE, left : left + _TILE]
            whole = np.zeros((_TILE, _TILE, count), np.int64)
            whole[: part.shape[0], : part.shape[1]] = part
            yield _packed(whole, layout)


def _packed(samples: Samples, layout: Layout) -> bytes:
    """Return rows of samples, the first in the highest bits, each row filled up to whole bytes."""
    rows = samples.reshape(samples.shape[0], -1)
    if layout.bits in (8, 16, 32):
        return rows.astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    bits = (rows[:, :, None] >> np.arange(layout.bits - 1, -1, -1) & 1).reshape(rows.shape[0], -1)
    return np.packbits(bits.astype(np.uint8), axis=1).tobytes()


def _gradients(count: int, most: int) -> Samples:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    levels = np.stack([(x * (i + 1) * 7 + y * (5 - i) * 3 + i * 40) % 256 for i in range(count)], axis=2)
    return np.round(levels / 255 * most).astype(np.int64)


def _shown(layout: Layout, samples: Samples, alpha: Samples, palette: NDArray[np.int64]) -> NDArray[np.float64]:
    most = (1 << layout.bits) - 1

    def levels(values: Samples) -> NDArray[np.float64]:
        spread = values >> layout.bits - 8 if layout.bits > 8 else values * (255 // most)
        return spread.astype(np.float64)

    values = levels(samples)
    match layout.colours:
        case "white at 0":
            rgb = np.repeat(255 - values, 3, axis=2)
        case "grey":
            rgb = np.repeat(values, 3, axis=2)
        case "palette":
            rgb = np.moveaxis(palette[:, samples[:, :, 0]], 0, 2).astype(np.float64)
        case "cmyk":
            rgb = (255 - values[:, :, :3]) * (255 - values[:, :, 3:]) // 255
        case "ycbcr":  # ITU-R BT.601
            y, blue, red = (values[:, :, i] - (128 if i else 0) for i in range(3))
            rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2)
            rgb = np.clip(np.round(rgb), 0, 255)
        case _:
            rgb = values
    share = levels(alpha) / 255
    if layout.alpha == "associated" and layout.colours != "palette":
        return np.asarray(np.minimum(rgb + 255 * (1 - share), 255))
    return np.asarray(rgb * share + 255 * (1 - share)) if layout.alpha in ("associated", "unassociated") else rgb
