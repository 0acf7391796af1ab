"""Make pictures for `trust`: MNIST's test digits as files, and pictures that are no digits."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Grey = NDArray[np.uint8]

_SIDE = 28
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LIKE_DIGITS = "lIOoSZ"
_SYMBOLS = "#$%&@+*=?!<>^~{}[]()/€£§¶†‡±÷×∞√Σ∏Ω"
_NOISE = 500
_HALVES = 2000


def write(mnist: Path, fonts: Path, out: Path) -> dict[str, int]:
    """Write a folder for each kind of pictures, `digits` with one for each label; return how many each has."""
    with np.load(mnist) as file:
        images, targets = file["x_test"], file["y_test"]
    counts = {}
    for label in range(10):
        _save(out / "digits" / str(label), iter(images[targets == label]))
    counts["digits"] = len(images)
    letters = [letter for letter in _LETTERS if letter not in _LIKE_DIGITS]
    for name, pictures in {
        "letters": _glyphs(fonts, letters),
        "letters-like-digits": _glyphs(fonts, list(_LIKE_DIGITS)),
        "symbols": _glyphs(fonts, list(_SYMBOLS)),
        "noise-by-pixel": iter(np.random.default_rng(0).integers(0, 256, (_NOISE, _SIDE, _SIDE), np.uint8)),
        "smooth-noise": _smooth_noise(),
        "blank": (np.full((_SIDE, _SIDE), level, np.uint8) for level in range(0, 256, 4)),
        "halves-of-digits": _halves(images[:_HALVES]),
    }.items():
        counts[name] = _save(out / name, pictures)
    return counts


def _save(folder: Path, pictures: Iterator[Grey]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for picture in pictures:
        (folder / f"{count:05}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        count += 1
    return count


def _glyphs(fonts: Path, characters: list[str]) -> Iterator[Grey]:
    for file in sorted(fonts.rglob("*.ttf")):
        font = ImageFont.truetype(str(file), 20)
        for character in characters:
            drawn = Image.new("L", (_SIDE, _SIDE))
            draw = ImageDraw.Draw(drawn)
            left, top, right, bottom = draw.textbbox((0, 0), character, font=font)
            place = (_SIDE / 2 - (left + right) / 2, _SIDE / 2 - (top + bottom) / 2)
            draw.text(place, character, fill=255, font=font)
            yield np.asarray(drawn)


def _smooth_noise() -> Iterator[Grey]:
    chance = np.random.default_rng(0)
    for cells in (4, 7, 14):
        for _ in range(150):
            coarse = chance.integers(0, 256, (cells, cells), np.uint8)
            yield np.asarray(Image.fromarray(coarse).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def _halves(images: Grey) -> Iterator[Grey]:
    """Yield the lower, upper, right and left half of digits in turn."""
    half = _SIDE // 2
    hidden = (np.s_[:half], np.s_[half:], np.s_[:, :half], np.s_[:, half:])
    for index, image in enumerate(images):
        shown = image.copy()
        shown[hidden[index % 4]] = 0
        yield shown
