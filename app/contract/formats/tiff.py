"""Decode the first picture of a TIFF with Pillow, which has libtiff's codecs, and convert Pillow's modes to `Pixels`.

A layout that docs/reference/formats.md does not list is rejected by name. OpenCV, for one, reports success for planes
of 16 bits without filling them. tests/contract/formats/test_tiff.py generates a file of every layout and compares it
with known pixels.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin, UnidentifiedImageError

from app.contract.formats.pixels import Pixels, array_of, damaged, open_with_pillow, unsupported
from app.contract.structure import TiffEntry, tiff_directory, tiff_numbers

TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader of uncompressed files knows fewer layouts

_NAME = "TIFF"
_INSTEAD = "8-bit RGB or grey"
_WHITE_IS_ZERO, _YCBCR = 0, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2
_IN_PLANES = 2
_COLOURS = {
    0: "grey that is white at 0",
    1: "grey",
    2: "RGB",
    3: "palette colours",
    4: "a transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "samples of a camera",
    32844: "LogL",
    32845: "LogLuv",
    34892: "samples of a camera",
}
_SAMPLE_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex floating-point"}
_READ = frozenset((0, 1, 2, 3, 5, 6))
_DEPTHS = (1, 2, 4, 8, 16)


class _Layout:
    """What the tags say of the pixels."""

    def __init__(self, tiff: bytes, entries: dict[int, TiffEntry]) -> None:
        def values(tag: int, default: int) -> list[int]:
            return tiff_numbers(tiff, entries[tag]) if tag in entries else [default]

        self.samples = values(277, 1)[0]
        self.bits = values(258, 1)
        self.colours = values(262, 1)[0]
        self.in_planes = values(284, 1)[0] == _IN_PLANES and self.samples > 1
        self.extra = values(338, -1)
        self.sample_formats = values(339, 1)
        self.compression = values(259, 1)[0]

    @property
    def alpha(self) -> int | None:
        """The kind of the alpha channel, if there is one. Extra samples of no declared meaning are not alpha."""
        return next((kind for kind in self.extra if kind in (_ASSOCIATED, _UNASSOCIATED)), None)

    def __str__(self) -> str:
        colours = _COLOURS.get(self.colours, f"colours of kind {self.colours}")
        parts = [f"{self.bits[0]}-bit {colours}"]
        if self.alpha is not None:
            parts.append("alpha")
        elif -1 not in self.extra:
            parts.append("further samples")
        return " and ".join(parts) + (" in separate planes" if self.in_planes else "")


def decode_tiff(tiff: bytes) -> Pixels:
    """Return the pixels of a TIFF whose structure has been checked. Raises UnsupportedLayout or UndecodableImage."""
    try:
        layout = _Layout(tiff, tiff_directory(tiff))
    except struct.error:
        raise damaged(_NAME) from None
    _check(layout)
    try:
        picture = open_with_pillow(tiff, "TIFF", _NAME)
    except UnidentifiedImageError:
        raise unsupported(_NAME, str(layout), _INSTEAD) from None
    return _pixels(picture, layout)


def _check(layout: _Layout) -> None:
    """Raise UnsupportedLayout for layouts that Pillow reads differently from what the tags say."""
    what = None
    kind = next((kind for kind in layout.sample_formats if kind in _SAMPLE_FORMATS), None)
    if kind is not None:
        what = f"{_SAMPLE_FORMATS[kind]} pixels"
    elif len(set(layout.bits)) > 1:
        what = f"samples of {' and '.join(str(bits) for bits in sorted(set(layout.bits)))} bits"
    elif layout.bits[0] not in _DEPTHS:
        what = f"{layout.bits[0]}-bit pixels"
    elif layout.compression not in TiffImagePlugin.COMPRESSION_INFO:
        what = f"compression {layout.compression}"
    elif (
        layout.colours not in _READ
        or (layout.samples == 2 and layout.alpha is not None and layout.in_planes)
        or (layout.colours == _YCBCR and layout.samples > 3)
    ):
        what = str(layout)
    if what is not None:
        raise unsupported(_NAME, what, _INSTEAD)


def _pixels(picture: Pillow.Image, layout: _Layout) -> Pixels:
    mode = picture.mode
    if mode.startswith("I;16"):
        levels = np.asarray(picture).astype(np.uint16)
        return Pixels(~levels if layout.colours == _WHITE_IS_ZERO else levels)
    if mode in ("LA", "La"):
        grey, alpha = np.moveaxis(np.asarray(picture), 2, 0)
        return Pixels(np.stack([grey, grey, grey, alpha], axis=2), premultiplied=mode == "La")
    if mode == "CMYK":
        return Pixels(_rgb_of_cmyk(np.asarray(picture)))
    if mode == "RGBA" and layout.alpha == _ASSOCIATED:
        return Pixels(_multiplied_again(np.asarray(picture)), premultiplied=True)
    return Pixels(array_of(picture))


def _multiplied_again(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the colours as the file has them: Pillow divides them by their alpha, and rounds down."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    colours = (rgba[:, :, :3] * alpha + 254) // 255
    return np.concatenate([colours, alpha], axis=2).astype(np.uint8)


def _rgb_of_cmyk(cmyk: NDArray[Any]) -> NDArray[np.uint8]:
    """Return RGB as libtiff makes it: (255 - ink) · (255 - black) / 255, rounded down."""
    inverse = 255 - cmyk.astype(np.uint16)
    return (inverse[:, :, :3] * inverse[:, :, 3:] // 255).astype(np.uint8)
