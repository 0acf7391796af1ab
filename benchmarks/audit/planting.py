"""Plant defects into good data from a seed, and record them, to measure the audit's recall.

It knows nothing of the audit. New pictures are written as files, as a user would have them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image, PreprocessingSpec, decode
from training.data.dataset import Dataset, Picture

_RGB = PreprocessingSpec(height=1, width=1, colour="rgb")
_DEGREES = 5.0


@dataclass
class Planted:
    """Data with defects. `copies` holds the pairs (original, copy) by kind; `source` the original of each copy."""

    dataset: Dataset
    copies: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    source: dict[str, str] = field(default_factory=dict)

    def is_planted(self, first: str, second: str) -> bool:
        """Return whether one picture was planted as a copy of the other, or both as copies of a third."""
        return self.source.get(first, first) == self.source.get(second, second)


def plant(dataset: Dataset, folder: Path, *, each: int, seed: int) -> Planted:
    """Add `each` copies and half as many corrupt files of every kind, as files in `folder`."""
    random = np.random.default_rng(seed)
    pictures = list(dataset.pictures)
    planted = Planted(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Callable[[Picture, np.random.Generator], tuple[str, bytes]]] = {
        "exact copy": lambda picture, _: (_suffix(picture), picture.encoded()),
        "exact, other format": lambda picture, _: (".bmp", _encode(".bmp", pixels_of(picture))),
        **{name: _made_by(make) for name, make in NEAR.items()},
    }
    for kind, make in kinds.items():
        for number, row in enumerate(random.choice(len(dataset.pictures), each, replace=False)):
            original = dataset.pictures[int(row)]
            suffix, data = make(original, random)
            name = f"planted/{kind.replace(' ', '-').replace(',', '')}-{number:04d}{suffix}"
            pictures.append(_file(folder, name, original.label, data))
            planted.copies.setdefault(kind, []).append((original.id, name))
            planted.source[name] = original.id
    for kind, spoil in _CORRUPT.items():
        for number, row in enumerate(random.choice(len(dataset.pictures), max(1, each // 2), replace=False)):
            original = dataset.pictures[int(row)]
            name = f"planted/{kind}-{number:04d}{_suffix(original)}"
            pictures.append(_file(folder, name, original.label, spoil(original.encoded(), random)))
            planted.corrupt.add(name)
    planted.dataset = Dataset(dataset.origin, dataset.labels, tuple(pictures))
    return planted


def mislabel(dataset: Dataset, *, rate: float, uniform: bool, seed: int) -> tuple[Dataset, set[str]]:
    """Give a share of the pictures another label, and return these pictures.

    Uniform noise takes any other class. Class-dependent noise takes the next class in order, at rates by class from
    nearly 0 to twice `rate`, like people who confuse some pairs.
    """
    random = np.random.default_rng(seed)
    count = len(dataset.labels)
    rates = np.full(count, rate) if uniform else np.linspace(0, 2 * rate, count)[random.permutation(count)]
    index = {label: place for place, label in enumerate(dataset.labels)}
    pictures, wrong = [], set()
    for picture in dataset.pictures:
        place = index[picture.label]
        if random.random() >= rates[place]:
            pictures.append(picture)
            continue
        step = int(random.integers(1, count)) if uniform else 1
        pictures.append(replace(picture, label=dataset.labels[(place + step) % count]))
        wrong.add(picture.id)
    return Dataset(dataset.origin, dataset.labels, tuple(pictures)), wrong


def pixels_of(picture: Picture) -> Image:
    """Return a picture's pixels, (H, W) grey or (H, W, 3) RGB."""
    return picture.content if isinstance(picture.content, np.ndarray) else decode(picture.encoded(), _RGB)


def _recompress(image: Image, random: np.random.Generator) -> tuple[str, Image, list[int]]:
    return ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(40, 91))]


def _rescale(image: Image, random: np.random.Generator) -> tuple[str, Image, list[int]]:
    smaller = random.random() < 0.5
    factor = random.uniform(0.6, 0.9) if smaller else random.uniform(1.1, 2.0)
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return ".png", _resized(image, size, cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), []


def _brighten(image: Image, random: np.random.Generator) -> tuple[str, Image, list[int]]:
    brighter = image.astype(np.float32) * random.uniform(1.0, 1.2) + random.uniform(15, 50)
    return ".png", np.clip(brighter, 0, 255).astype(np.uint8), []


def _shift(image: Image, random: np.random.Generator) -> tuple[str, Image, list[int]]:
    most = max(2, round(min(image.shape[:2]) * 0.06)) + (1 if min(image.shape[:2]) < 40 else 0)
    x, y = (int(step) for step in random.integers(-most, most + 1, 2))
    return ".png", _moved(image, np.array([[1.0, 0, x or most], [0, 1.0, y]])), []


def _crop(image: Image, random: np.random.Generator) -> tuple[str, Image, list[int]]:
    height, width = image.shape[:2]
    top, bottom, left, right = (max(1, round(share * side)) for share, side in zip(
        random.uniform(0.02, 0.08, 4), (height, height, width, width), strict=True
    ))  # fmt: skip
    return ".png", image[top : height - bottom, left : width - right], []


def _turn(image: Image, random: np.random.Generator) -> tuple[str, Image, list[int]]:
    middle = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    degrees = _DEGREES if random.random() < 0.5 else -_DEGREES
    return ".png", _moved(image, cv2.getRotationMatrix2D(middle, degrees, 1.0)), []


def _mirror(image: Image, _random: np.random.Generator) -> tuple[str, Image, list[int]]:
    return ".png", image[:, ::-1], []


NEAR: dict[str, Callable[[Image, np.random.Generator], tuple[str, Image, list[int]]]] = {
    "recompressed": _recompress,
    "resized": _rescale,
    "brightened": _brighten,
    "shifted": _shift,
    "cropped": _crop,
    "turned": _turn,
    "mirrored": _mirror,
}
"""How to make a near duplicate of each kind: the file's ending, its pixels, and its encoding."""

_CORRUPT: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "empty": lambda _data, _random: b"",
    "cut-off": lambda data, random: data[: int(len(data) * random.uniform(0.2, 0.95))],
    "noise": lambda data, random: random.bytes(len(data)),
    "text": lambda _data, _random: b"<!doctype html><title>404 Not Found</title>",
}


def _made_by(
    make: Callable[[Image, np.random.Generator], tuple[str, Image, list[int]]],
) -> Callable[[Picture, np.random.Generator], tuple[str, bytes]]:
    def made(picture: Picture, random: np.random.Generator) -> tuple[str, bytes]:
        suffix, image, options = make(pixels_of(picture), random)
        return suffix, _encode(suffix, image, options)

    return made


def _moved(image: Image, matrix: NDArray[Any]) -> Image:
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, matrix, (image.shape[1], image.shape[0]), borderMode=border), np.uint8)


def _resized(image: Image, size: tuple[int, int], interpolation: int) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _encode(suffix: str, image: Image, options: Sequence[int] = ()) -> bytes:
    bgr = image if image.ndim == 2 else image[..., ::-1]
    return cv2.imencode(suffix, np.ascontiguousarray(bgr), list(options))[1].tobytes()


def _suffix(picture: Picture) -> str:
    return picture.content.suffix.lower() if isinstance(picture.content, Path) else ".png"


def _file(folder: Path, name: str, label: str, data: bytes) -> Picture:
    file = folder / name.removeprefix("planted/")
    file.write_bytes(data)
    return Picture(name, label, None, file)
