"""Put pictures inside a page as data URLs, so that the page needs no other file."""

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


@dataclass(frozen=True)
class InlineImage:
    """An image as a data URL. A `small` one is shown enlarged, with its pixels visible."""

    url: str
    small: bool


def inline(image: Image) -> InlineImage:
    """Return an image (H, W, C), of at most 128 pixels a side, as PNG if it is small, and as JPEG if not."""
    if max(image.shape[:2]) > _SIDE:
        image = _shrunk(image[..., 0] if image.shape[2] == 1 else image)
    small = max(image.shape[:2]) < _SMALL
    kind, options = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 80])
    _, encoded = cv2.imencode(f".{kind}", image[..., ::-1] if image.shape[2] == 3 else image, options)
    return InlineImage(f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}", small)


def thumbnail(picture: Picture) -> InlineImage | None:
    """Return a picture, upright, of at most 128 pixels a side; None if it cannot be read."""
    try:
        if isinstance(picture.content, np.ndarray):
            image = picture.content
        else:
            image = decode(picture.encoded(), PreprocessingSpec(height=1, width=1, colour="rgb"))
        return inline(_shrunk(image))
    except (ImageError, DataError):
        return None


def _shrunk(image: Image) -> Image:
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return prepare(image, PreprocessingSpec(height=height, width=width, colour="rgb"))
