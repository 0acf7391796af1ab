"""Small colour pictures in classes that a network can tell apart, for tests that are about photos."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np


def photo(kind: int, seed: int) -> bytes:
    """Return a JPEG of 160x144 pixels: noise, and stripes whose colour and slope tell which of three kinds it is."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(160), np.arange(144))
    wave = np.sin((across, down, across + down)[kind] * random.uniform(0.2, 0.3) + random.uniform(0, 6))
    picture = random.normal(90, 12, (144, 160, 3))
    picture[..., kind] += 60 * wave + 60
    return cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8))[1].tobytes()


def write_photos(folder: Path, labels: Sequence[str], *, of_each: int) -> Path:
    """Write so many photos of each of up to three classes into a sub-folder for each, and return the folder."""
    for kind, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for row in range(of_each):
            (folder / label / f"{row}.jpg").write_bytes(photo(kind, 1000 * kind + row))
    return folder
