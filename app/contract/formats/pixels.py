"""The pixels that a decoder returns, and how to get them from Pillow."""

import math
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from app.errors import UndecodableImage, UnsupportedLayout

Pillow.MAX_IMAGE_PIXELS = None  # pixels are counted before a picture is decoded, by the limit of the settings


class Pixels(NamedTuple):
    """The pixels of a picture, upright: uint8 or uint16; grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4)."""

    array: NDArray[Any]
    premultiplied: bool = False
    """Whether the colours are multiplied by their alpha already."""


def damaged(name: str) -> UndecodableImage:
    return UndecodableImage(
        f"The file begins like {name} but cannot be decoded: it is damaged or cut off. "
        "Open it in a viewer and save it again."
    )


def check_agreement(size: tuple[int, int], most_pixels: float, name: str) -> None:
    """Raise UndecodableImage if a decoder finds more pixels than the header said."""
    if size[0] * size[1] > most_pixels:
        raise damaged(name)


def unsupported(name: str, what: str, instead: str) -> UnsupportedLayout:
    """Return the error for a valid file of a kind that is not supported: "A TIFF with … is not supported. …"."""
    article = "An" if name[0] == "A" else "A"
    return UnsupportedLayout(f"{article} {name} with {what} is not supported. Save it as {instead}.")


def open_with_pillow(data: bytes, plugin: str, name: str, *, most_pixels: float = math.inf) -> Pillow.Image:
    """Return the first picture of a file, of at most `most_pixels`, decoded by one of Pillow's plugins.

    Raises UndecodableImage if the file is damaged or has more pixels, and PIL.UnidentifiedImageError if the plugin does
    not know its layout.
    """
    try:
        picture = Pillow.open(BytesIO(data), formats=(plugin,))
        check_agreement(picture.size, most_pixels, name)
        picture.load()
    except UnidentifiedImageError:
        raise
    except Exception as exc:
        raise damaged(name) from exc
    return picture


def array_of(picture: Pillow.Image) -> NDArray[np.uint8]:
    """Return a decoded picture of 8 bits as grey (H, W), RGB or RGBA. A palette becomes its colours."""
    if picture.mode == "1":
        picture = picture.convert("L")
    elif picture.mode == "PA" or (picture.mode == "P" and "transparency" in picture.info):
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    return np.asarray(picture)
