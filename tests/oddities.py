"""Pictures of every odd kind that a client may send, each with the answer that it must get.

All show the same four flat fields, or say what they show instead. They are made by Pillow, or by hand where it cannot;
nothing of the service is used to make them.
"""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms

HEIGHT, WIDTH = 32, 48
FIELDS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
FIELDS[:16, :24], FIELDS[:16, 24:] = (220, 30, 40), (40, 200, 60)
FIELDS[16:, :24], FIELDS[16:, 24:] = (50, 60, 210), (240, 220, 50)

# cjpeg -arithmetic of the fields at quality 90, and with -progressive: no library here writes them.
_ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ6%5fc;@6%`B*7Z?^47!ni}"
    "6#v@*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6cqo-01*fPAOJ7}0TBQK5di}c"
    "0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0MZVn;EHnk>=4%+m)nG^s#fCv0Az$g`%MA;`ELAa_cLLlxxN4f@hGc-`~Lu||Je"
)
_ARITHMETIC_PROGRESSIVE = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ6%5fc;@6%`B*7Z?^47!ni}"
    "6#v@*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6cqo;01*fPAOJ7}0TBQK5di}c"
    "0sqVZ1^^HN5dYc$3<CiG0uTcb000610HhvF%jWCshky+RDqvEhN*$mbN6e1}5x=W#2s#6D%5}x<n_aW5<ADFn00a;P|Jncu0RaF31p=`D%m4%t"
    "1^?Or2mu2D0Y3q-|I7dc5e5I+00;pB0RcY&u>Z^e1P}%P+5iXv0RRR+0<izg00a;P|Jncu0RaF3KOwOH+5ij#0RRF30{{R35X_E{0U*i$0Fr?J"
    "%m4%t1^?Or2mu2D0Y4D1|I7dc5e5I+00;pB0RcY{u>Z^e1P}%P+5iXv0RRC%5U~H*"
)


@dataclass(frozen=True)
class Oddity:
    """An encoded picture, and what it shows: (H, W, 3) RGB within `tolerance` levels, or the code of its error."""

    name: str
    data: bytes
    shows: NDArray[np.uint8] | None = None
    tolerance: int = 0
    error: str | None = None


def oddities() -> list[Oddity]:
    return [*_jpegs(), *_pngs(), *_webps(), *_gifs(), *_tiffs(), *_bmps(), *_thin(), *_hybrids()]


def pillow(image: Pillow.Image | None = None, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture, or else the fields, as Pillow writes it."""
    out = io.BytesIO()
    (image or Pillow.fromarray(FIELDS)).save(out, kind, **options)
    return out.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *between: bytes, interlace: int = 0) -> bytes:
    """Return a PNG of filtered rows, with chunks between its header and them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = [chunk(b"IHDR", header), *between, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_png_chunks(data: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind the header of a PNG."""
    return data[:33] + b"".join(chunks) + data[33:]


def lossless_jpeg(width: int, height: int) -> bytes:
    """Return a lossless JPEG (SOF3) whose every pixel is predicted rightly: all are mid-grey."""
    table = segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00")  # the code 0: no difference
    frame = segment(0xC3, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    scan = segment(0xDA, b"\x01\x01\x00\x01\x00\x00") + bytes((width * height + 7) // 8)
    return b"\xff\xd8" + table + frame + scan + b"\xff\xd9"


def progressive_jpeg(width: int, height: int, *, scans: int) -> bytes:
    """Return a grey progressive JPEG of a scan for DC and so many for AC, all of which say nothing."""
    one_code = bytes([1] + [0] * 15)
    blocks = -(-width // 8) * -(-height // 8)
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC4, b"\x00" + one_code + b"\x00")
    tables += segment(0xC4, b"\x10" + one_code + b"\x00")  # the code 0: the block ends
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    nothing = bytes((blocks + 7) // 8)
    dc = segment(0xDA, b"\x01\x01\x00\x00\x00\x00") + nothing
    ac = segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + nothing
    return b"\xff\xd8" + tables + frame + dc + ac * scans + b"\xff\xd9"


def ycck_jpeg() -> bytes:
    """Return the fields as Photoshop stores CMYK: inverted, and what is left of C, M and Y as luma and chroma."""
    ycc = np.asarray(Pillow.fromarray(~FIELDS).convert("YCbCr"))
    planes = np.dstack([ycc, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    # Pillow inverts what it stores as CMYK, and says so; the four planes are meant as they are.
    data = bytearray(pillow(Pillow.fromarray(~planes, "CMYK"), "JPEG", quality=95, subsampling=0))
    adobe = data.index(b"Adobe")
    data[adobe + 11] = 2  # YCCK
    return bytes(data)


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _jpegs() -> Iterator[Oddity]:
    cmyk = Pillow.fromarray(FIELDS).convert("CMYK")
    grey = np.broadcast_to(np.asarray(Pillow.fromarray(FIELDS).convert("L"))[..., None], FIELDS.shape)
    jpeg: dict[str, Any] = {"kind": "JPEG", "quality": 95, "subsampling": 0}
    yield Oddity("CMYK JPEG", pillow(cmyk, **jpeg), FIELDS, 8)
    yield Oddity("YCCK JPEG", ycck_jpeg(), FIELDS, 8)
    yield Oddity("grey JPEG", pillow(Pillow.fromarray(FIELDS).convert("L"), **jpeg), grey, 4)
    yield Oddity("progressive JPEG", pillow(**jpeg, progressive=True), FIELDS, 6)
    yield Oddity("arithmetic JPEG", _ARITHMETIC, FIELDS, 6)
    yield Oddity("arithmetic progressive JPEG", _ARITHMETIC_PROGRESSIVE, FIELDS, 6)
    yield Oddity("JPEG with restart markers", pillow(**jpeg, restart_marker_blocks=1), FIELDS, 6)
    yield Oddity("RGB JPEG", pillow(**jpeg, keep_rgb=True), FIELDS, 6)
    yield Oddity("JPEG with a profile", pillow(**jpeg, icc_profile=_profile()), FIELDS, 6)
    yield Oddity("lossless JPEG", lossless_jpeg(5, 3), error="undecodable_image")
    twelve = bytearray(pillow(**jpeg))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    yield Oddity("12-bit JPEG", bytes(twelve), error="undecodable_image")
    yield Oddity("JPEG of too many scans", progressive_jpeg(WIDTH, HEIGHT, scans=200), error="undecodable_image")


def _pngs() -> Iterator[Oddity]:
    palette = Pillow.fromarray(FIELDS).quantize(4, dither=Pillow.Dither.NONE)
    yield Oddity("palette PNG", pillow(palette), FIELDS)
    yield Oddity("PNG with a profile", pillow(icc_profile=_profile()), FIELDS)
    yield Oddity("interlaced PNG", _interlaced(), FIELDS)
    checks = np.indices((9, 13)).sum(axis=0) % 2 * 255
    bits = Pillow.fromarray(checks.astype(np.uint8)).convert("1", dither=Pillow.Dither.NONE)
    yield Oddity("1-bit PNG", pillow(bits), np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    deep = FIELDS.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    yield Oddity("16-bit PNG", png(WIDTH, HEIGHT, 16, 2, rows), FIELDS)
    clear = Pillow.fromarray(np.dstack([FIELDS, np.zeros((HEIGHT, WIDTH), np.uint8)]))
    yield Oddity("transparent PNG", pillow(clear), np.full_like(FIELDS, 255))
    frames = [Pillow.fromarray(FIELDS), Pillow.fromarray(~FIELDS)]
    yield Oddity("animated PNG", pillow(frames[0], save_all=True, append_images=frames[1:]), FIELDS)
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(7_000_000), 9))
    yield Oddity("PNG with texts that inflate", with_png_chunks(pillow(), *[bomb] * 20), FIELDS)
    long = np.zeros((HEIGHT, 3 * WIDTH + 1), np.uint8).tobytes() + bytes(40_000_000)
    yield Oddity("PNG with rows behind its last", png(WIDTH, HEIGHT, 8, 2, long), error="undecodable_image")
    many = [chunk(b"tEXt", b"a\0")] * 20_000
    yield Oddity("PNG of very many chunks", with_png_chunks(pillow(), *many), error="undecodable_image")


def _interlaced() -> bytes:
    """Return the fields in Adam7's seven passes."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, right in passes for row in FIELDS[top::down, left::right]
    )
    return png(WIDTH, HEIGHT, 8, 2, rows, interlace=1)


def _webps() -> Iterator[Oddity]:
    frames = [Pillow.fromarray(FIELDS), Pillow.fromarray(~FIELDS)]
    yield Oddity("lossless WebP", pillow(kind="WEBP", lossless=True), FIELDS)
    yield Oddity("WebP with a profile", pillow(kind="WEBP", lossless=True, icc_profile=_profile()), FIELDS)
    animated = pillow(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield Oddity("animated WebP", animated, FIELDS)
    clear = Pillow.fromarray(np.dstack([FIELDS, np.zeros((HEIGHT, WIDTH), np.uint8)]))
    yield Oddity("transparent WebP", pillow(clear, "WEBP", lossless=True), np.full_like(FIELDS, 255))


def _gifs() -> Iterator[Oddity]:
    palettes = [Pillow.fromarray(each).quantize(4, dither=Pillow.Dither.NONE) for each in (FIELDS, ~FIELDS)]
    yield Oddity("GIF", pillow(palettes[0], "GIF"), FIELDS)
    yield Oddity("interlaced GIF", pillow(palettes[0], "GIF", interlace=1), FIELDS)
    animated = pillow(palettes[0], "GIF", save_all=True, append_images=palettes[1:], loop=0)
    yield Oddity("animated GIF", animated, FIELDS)


def _tiffs() -> Iterator[Oddity]:
    frames = [Pillow.fromarray(FIELDS), Pillow.fromarray(~FIELDS)]
    pages = pillow(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    yield Oddity("TIFF of two pages", pages, FIELDS)
    yield Oddity("TIFF whose second page is its first", _cyclic(pillow(kind="TIFF")), FIELDS)
    yield Oddity("TIFF with a profile", pillow(kind="TIFF", icc_profile=_profile()), FIELDS)
    yield Oddity("CMYK TIFF", pillow(Pillow.fromarray(FIELDS).convert("CMYK"), "TIFF"), FIELDS, 2)
    palette = Pillow.fromarray(FIELDS).quantize(4, dither=Pillow.Dither.NONE)
    yield Oddity("palette TIFF", pillow(palette, "TIFF"), FIELDS)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield Oddity(f"TIFF in {compression}", pillow(kind="TIFF", compression=compression), FIELDS)
    yield Oddity("TIFF with JPEG inside", pillow(kind="TIFF", compression="jpeg", quality=95), FIELDS, 6)
    yield Oddity("TIFF of huge tiles", tiled(8, 8, 16_384, 16_368), error="undecodable_image")
    yield Oddity("TIFF of very many tiles", tiled(3000, 3000, 16, 16), error="undecodable_image")
    yield Oddity("TIFF of tiles without pixels", tiled(8, 8, 0, 0), error="undecodable_image")


def _cyclic(tiff: bytes) -> bytes:
    """Let the one directory of a little-endian TIFF be followed by itself."""
    (directory,) = struct.unpack_from("<I", tiff, 4)
    end = directory + 2 + 12 * struct.unpack_from("<H", tiff, directory)[0]
    return tiff[:end] + struct.pack("<I", directory) + tiff[end + 4 :]


def tiled(width: int, height: int, tile_width: int, tile_height: int) -> bytes:
    """Return a TIFF of grey tiles, which all begin in the first bytes of the file."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1}
    tags |= {322: tile_width, 323: tile_height, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IQH", 16, 0, len(tags)) + entries + bytes(4)


def _bmps() -> Iterator[Oddity]:
    palette = Pillow.fromarray(FIELDS).quantize(4, dither=Pillow.Dither.NONE)
    yield Oddity("BMP", pillow(kind="BMP"), FIELDS)
    yield Oddity("palette BMP", pillow(palette, "BMP"), FIELDS)


def _thin() -> Iterator[Oddity]:
    """Pictures of one pixel, and lines as long as the format has them."""
    for kind, options in (
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
    ):
        longest = 16_383 if kind == "WEBP" else 20_000
        for height, width in ((1, 1), (1, longest), (longest, 1)):
            shows = np.full((height, width, 3), 90, np.uint8)
            data = pillow(Pillow.fromarray(shows), kind, **options)
            yield Oddity(f"{kind} of {width}x{height}", data, shows, 2)


def _hybrids() -> Iterator[Oddity]:
    """Files that are a picture and something else; the first bytes decide."""
    archive = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    markup = b"<html><script>alert(1)</script></html>"
    plain: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("JPEG", 6, {"quality": 95, "subsampling": 0}),
        ("PNG", 0, {}),
        ("WEBP", 0, {"lossless": True}),
        ("BMP", 0, {}),
        ("GIF", 2, {}),
        ("TIFF", 0, {}),
    )
    for kind, tolerance, options in plain:
        data = pillow(kind=kind, **options)
        yield Oddity(f"{kind} with garbage behind", data + bytes(range(256)) * 40, FIELDS, tolerance)
        yield Oddity(f"{kind} with an archive behind", data + archive, FIELDS, tolerance)
    jpeg = pillow(kind="JPEG", quality=95, subsampling=0)
    yield Oddity("JPEG with a page in its comment", jpeg[:2] + segment(0xFE, markup) + jpeg[2:], FIELDS, 6)
    yield Oddity("JPEG with a PDF in its comment", jpeg[:2] + segment(0xFE, b"%PDF-1.7 ") + jpeg[2:], FIELDS, 6)
    yield Oddity("JPEG with JPEGs behind", jpeg + jpeg * 100, FIELDS, 6)
    yield Oddity("PDF with a JPEG inside", b"%PDF-1.7\n" + jpeg, error="unsupported_format")
    yield Oddity("page with a PNG inside", markup + pillow(), error="unsupported_format")
    yield Oddity("PNG with a page in its text", with_png_chunks(pillow(), chunk(b"tEXt", b"a\0" + markup)), FIELDS)
