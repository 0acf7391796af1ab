"""Make pictures for pages: inside a page as data URLs, so that it needs no other file, or as files of their own."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from app.contract.preprocessing import Image, PreprocessingSpec, decode, prepare
from app.errors import ImageError
from training.data.dataset import Picture
from training.errors import DataError

_SIDE = 128
_SMALL = 64
_QUALITY = 80


@dataclass(frozen=True)
class InlineImage:
    """An image as a data URL. A `small` one is shown enlarged, with its pixels visible."""

    url: str
    small: bool


def inline(image: Image) -> InlineImage:
    """Return an image (H, W, C), of at most 128 pixels a side, as PNG if it is small, and as JPEG if not."""
    if max(image.shape[:2]) > _SIDE:
        image = _shrunk(image[..., 0] if image.shape[2] == 1 else image, _SIDE)
    kind, encoded = _encoded(image)
    return InlineImage(f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}", small=kind == "png")


def thumbnail(picture: Picture) -> InlineImage | None:
    """Return a picture, upright, of at most 128 pixels a side; None if it cannot be read."""
    try:
        return inline(_upright(picture, _SIDE))
    except (ImageError, DataError):
        return None


def large(picture: Picture, side: int) -> tuple[str, bytes]:
    """Return a picture, upright, of at most `side` pixels a side: "png" or "jpeg", and the bytes of the file.

    Raises ImageError or DataError if it cannot be read.
    """
    return _encoded(_upright(picture, side))


def _encoded(image: Image) -> tuple[str, bytes]:
    kind, options = ("png", []) if max(image.shape[:2]) < _SMALL else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    _, encoded = cv2.imencode(f".{kind}", image[..., ::-1] if image.shape[2] == 3 else image, options)
    return kind, encoded.tobytes()


def _upright(picture: Picture, side: int) -> Image:
    if isinstance(picture.content, np.ndarray):
        return _shrunk(picture.content, side)
    return _shrunk(decode(picture.encoded(), PreprocessingSpec(height=1, width=1, colour="rgb")), side)


def _shrunk(image: Image, side: int) -> Image:
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return prepare(image, PreprocessingSpec(height=height, width=width, colour="rgb"))
