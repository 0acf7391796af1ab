"""Proposing pairs among very many pictures: descriptors are shortened while they are made."""

import tracemalloc

import numpy as np
import pytest

from training.audit import neighbours
from training.audit.neighbours import candidates


@pytest.mark.parametrize("ground", [0, 90], ids=["drawings", "photos"])
def test_the_descriptors_of_all_pictures_never_lie_in_memory_at_once(
    ground: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_FITTED_ON", 300)
    monkeypatch.setattr(neighbours, "_DESCRIBED_AT_ONCE", 100)
    random = np.random.default_rng(0)
    thumbnails = random.integers(0, 10 + ground, (3_000, 32, 32), np.uint8)
    thumbnails[:, 8:24, 8:24] += 120
    copies = np.array([3, 1_700])
    thumbnails[copies + 1_000] = thumbnails[copies]
    even = np.full(len(thumbnails), ground == 0)
    tracemalloc.start()
    try:
        found = candidates(thumbnails, copies, even, each=4, advance=lambda count: None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {(3, 1_003), (1_700, 2_700)} <= set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert most < 3_000 * 32 * 32 * 4, "less than the pictures take as float32, as which they are described"
