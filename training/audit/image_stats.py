"""Read every picture once and keep its `Look`: digests, facts from the header, a few pixel statistics, and a thumbnail.

A `Look` takes about a kilobyte and never holds the picture: a hundred thousand photos need no more memory than their
thumbnails. It knows nothing of checks or thresholds, and nothing of labels.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.header import read_header
from app.contract.limits import why_too_large
from app.contract.preprocessing import Image, PreprocessingSpec, decode, prepare, use_one_thread_per_picture
from app.errors import ImageError
from app.system.cores import available_cores
from training.audit.file_facts import file_facts
from training.data.dataset import Picture
from training.errors import DataError

_CHUNK = 32
_LARGEST_THUMBNAIL, _SMALLEST_THUMBNAIL = 48, 16
_LARGEST_MEASURED = 256
_MOST_PIXELS = 200_000_000
_LOOKED_AT_FOR_SIZE = 200
_RGB = PreprocessingSpec(height=1, width=1, colour="rgb")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a picture found.

    `error` says why the picture cannot be used; all fields after `content` are then empty. `too_large` says why the
    service rejects it unless its limits are raised. `content` is the digest of a file's bytes or an array's pixels,
    `pixels` that of the decoded, upright, opaque pixels. `coloured` says that not all pixels are grey. Levels are grey,
    0 to 255: `darkest` and `lightest` are the first and the last percentile, `spread` is the range without half a per
    cent at each end. `sharpness` is edge strength over contrast. `thumbnail` is (side, side) uint8.
    """

    error: str | None
    content: str
    pixels: str = ""
    coloured: bool = False
    format: str = ""
    mode: str = ""
    alpha: bool = False
    orientation: int = 1
    width: int = 0
    height: int = 0
    darkest: float = 0.0
    lightest: float = 0.0
    spread: float = 0.0
    sharpness: float = 0.0
    too_large: str | None = None
    thumbnail: Image | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes in pixels at which the pictures of one data set are examined, so that they can be compared.

    Thumbnails have the pictures' own side if the pictures are small, so that none is blurred. Sharpness is measured
    with the longer side at `measured` at most, because the same edge is softer in a larger picture. `typical` is the
    median of the pictures' shorter sides.
    """

    thumbnail: int
    measured: int
    typical: int


def scale_of(pictures: Sequence[Picture]) -> Scale:
    """Return the scale that suits a data set, from some of its headers."""
    sides = []
    for picture in pictures[:: max(1, len(pictures) // _LOOKED_AT_FOR_SIZE)]:
        if isinstance(picture.content, np.ndarray):
            sides.append(min(picture.content.shape[:2]))
            continue
        try:
            header = read_header(picture.begin(65536))
        except (ImageError, DataError):
            continue
        sides.append(min(header.width, header.height))
    typical = int(np.median(sides)) if sides else _LARGEST_MEASURED
    return Scale(
        thumbnail=max(_SMALLEST_THUMBNAIL, min(_LARGEST_THUMBNAIL, typical)),
        measured=min(_LARGEST_MEASURED, typical),
        typical=typical,
    )


def look_at_all(pictures: Sequence[Picture], scale: Scale, advance: Callable[[int], None]) -> list[Look]:
    """Return a look at each picture, on all cores; `advance` is called with the number of pictures just done."""

    def chunk(start: int) -> list[Look]:
        return [look_at(picture, scale) for picture in pictures[start : start + _CHUNK]]

    use_one_thread_per_picture()
    looks: list[Look] = []
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="look") as executor:
        for found in executor.map(chunk, range(0, len(pictures), _CHUNK)):
            looks += found
            advance(len(found))
    return looks


def look_at(picture: Picture, scale: Scale) -> Look:
    """Return a look at one picture. It raises nothing for faults of the picture."""
    if isinstance(picture.content, np.ndarray):
        image = picture.content
        content = _digest(image)
        mode = "grey" if image.ndim == 2 else "rgb"
        return _of_image(image, content, "array", mode, False, 1, image.shape[1], image.shape[0], scale)
    try:
        data = picture.encoded()
    except DataError as exc:
        return Look(str(exc), "")
    content = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        header = read_header(data)
        if header.pixels > _MOST_PIXELS:
            return Look(f"It declares {header.width}x{header.height} pixels, more than can be decoded safely.", content)
        image = decode(data, _RGB, header=header)
    except ImageError as exc:
        return Look(str(exc), content)
    facts = file_facts(data, header.format)
    look = _of_image(
        image, content, header.format, facts.mode, facts.alpha, facts.orientation, header.width, header.height, scale
    )
    return replace(look, too_large=why_too_large(data, header))


def _of_image(
    image: Image, content: str, image_format: str, mode: str, alpha: bool, orientation: int, width: int, height: int,
    scale: Scale,
) -> Look:  # fmt: skip
    if (
        image.ndim == 3
        and np.array_equal(image[..., 0], image[..., 1])
        and np.array_equal(image[..., 1], image[..., 2])
    ):
        # a grey picture that is stored in colour gets the digest of the grey one
        image = np.ascontiguousarray(image[..., 0])
    shrink = min(1.0, scale.measured / max(image.shape[:2]))
    rows, columns = (max(1, round(length * shrink)) for length in image.shape[:2])
    grey = prepare(image, _grey(rows, columns))[..., 0]
    low, darkest, lightest, high = np.percentile(grey, (0.5, 1, 99, 99.5))
    contrast = float(grey.std())
    return Look(
        error=None,
        content=content,
        pixels=_digest(image),
        coloured=image.ndim == 3,
        format=image_format,
        mode=mode,
        alpha=alpha,
        orientation=orientation,
        width=width,
        height=height,
        darkest=float(darkest),
        lightest=float(lightest),
        spread=float(high - low),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).std()) / contrast if contrast > 0 else 0.0,
        thumbnail=prepare(grey, _grey(scale.thumbnail, scale.thumbnail))[..., 0],
    )


def _digest(image: NDArray[np.uint8]) -> str:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _grey(height: int, width: int) -> PreprocessingSpec:
    return PreprocessingSpec(height=height, width=width, colour="grey")
