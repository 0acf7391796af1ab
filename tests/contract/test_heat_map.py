"""A map as it is drawn."""

import numpy as np
import pytest

from app.contract.heat_map import enlarged


def test_the_hottest_place_stays_hottest_and_spreads_to_its_neighbours() -> None:
    grid = np.zeros((7, 7), np.float32)
    grid[2, 5] = 1
    drawn = enlarged(grid, 224, 112)
    assert drawn.shape == (224, 112)
    top, left = np.unravel_index(drawn.argmax(), drawn.shape)
    assert abs(top - 2.5 * 32) <= 2
    assert abs(left - 5.5 * 16) <= 2
    assert drawn[3 * 32 + 16, 5 * 16 + 8] > drawn.max() / 4, "the place below it is warm"
    assert drawn[6 * 32 :, :32].max() == 0, "what is far away is not"


@pytest.mark.parametrize("shape", [(1, 1), (4, 7)])
def test_a_map_that_is_the_same_everywhere_is_cold_everywhere(shape: tuple[int, int]) -> None:
    assert not enlarged(np.full(shape, 3.0, np.float32), 30, 50).any()
