"""Small data sets with known defects."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.uint8]


def scene(seed: int, side: int = 48) -> Array:
    """Return a coloured picture with edges and soft areas, unlike that of any other seed: (side, side, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 220, (6, 6, 3), np.uint8)
    picture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        x, y, width, height = (int(value) for value in random.integers(2, side * 2 // 3, 4))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.rectangle(picture, (x, y), (x + width // 2, y + height // 2), colour, -1)
    return np.asarray(picture, np.uint8)


def write(path: Path, picture: Array, *options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture, options)[1].tobytes())
    return path


@pytest.fixture
def found(tmp_path: Path) -> Callable[[Path], dict[str, list[tuple[str, ...]]]]:
    """Return the function that audits a path without models, and gives the pictures of every check's findings."""
    from training.audit.pipeline import AuditOptions, run_audit
    from training.data.sources import open_data
    from training.progress import Reporter

    def audit(data: Path) -> dict[str, list[tuple[str, ...]]]:
        findings = run_audit(open_data(str(data)), AuditOptions(near=False, labels=False), Reporter()).findings
        by_check: dict[str, list[tuple[str, ...]]] = {}
        for finding in findings:
            by_check.setdefault(finding.check, []).append(finding.pictures)
        return by_check

    return audit
