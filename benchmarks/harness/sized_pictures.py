"""Make pictures of a given size in bytes, cut from real photos side by side.

They are not scaled: an enlarged photo is smooth, and takes fewer bits per pixel than a camera's.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.errors import BenchmarkError

_QUALITY = 95
_MOST_PIXELS = 24_000_000  # the service accepts 25 million
_CLOSE_ENOUGH = 0.1
_TRIES = 8


def sized_picture(photos: Sequence[bytes], size_bytes: int) -> bytes:
    """Return a JPEG of `size_bytes`, give or take a tenth. Raises BenchmarkError if the photos are not enough."""
    images = [_decode(photo) for photo in photos]
    height, width = (min(image.shape[axis] for image in images) for axis in (0, 1))
    row = np.concatenate([image[:height, :width] for image in images], axis=1)
    quality, side = _QUALITY, 64
    for _ in range(_TRIES):
        picture = cv2.imencode(".jpg", _square(row, side), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if abs(len(picture) / size_bytes - 1) <= _CLOSE_ENOUGH:
            return picture
        side = max(8, round(side * (size_bytes / len(picture)) ** 0.5))
        if side**2 > _MOST_PIXELS:
            quality, side = 100, round(_MOST_PIXELS**0.5) // 2
    raise BenchmarkError(f"No picture of {size_bytes:,} bytes could be made of the photos.")


def _square(row: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a square from the middle of the row, which is repeated as often as needed."""
    height, width = row.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    copies = np.tile(row, (-(-(top + side) // height), -(-(left + side) // width), 1))
    return np.ascontiguousarray(copies[top : top + side, left : left + side])


def _decode(photo: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)  # noqa: TID251 - no preprocessing
    if image is None:
        raise BenchmarkError("A file of the photos is not a picture that OpenCV reads.")
    return np.asarray(image, np.uint8)
