"""AVIF and HEIC: colours, alpha, ten bits and each turn, of tests/data/heif; see the README there."""

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.header import read_header
from app.contract.preprocessing import PreprocessingSpec, decode
from app.errors import UndecodableImage

SPEC = PreprocessingSpec(height=8, width=8, colour="rgb")
FOLDER = Path(__file__).parents[2] / "data" / "heif"
LOSS = 4
"""Grey levels by which a lossy picture may differ."""


def drawn() -> NDArray[np.int64]:
    """Return what the files show: (48, 64, 3)."""
    y, x = np.mgrid[:48, :64]
    rgb = np.stack([x * 4, y * 5 % 256, np.full_like(x, 60)], axis=2)
    rgb[:16, :16], rgb[32:, :16] = (250, 20, 20), (20, 250, 20)
    return rgb


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def assert_shows(name: str, expected: NDArray[np.int64]) -> None:
    found = decode(read(name), SPEC)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= LOSS


@pytest.mark.parametrize("name", ["colours.heic", "ten_bits.heic", "colours.avif"])
def test_colours_are_those_that_were_drawn(name: str) -> None:
    assert_shows(name, drawn())


@pytest.mark.parametrize("name", ["alpha.heic", "alpha.avif"])
def test_what_is_transparent_shows_the_background(name: str) -> None:
    expected = drawn()
    expected[:, :32] = 255
    assert_shows(name, expected)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_heic_is_turned_as_it_says(quarter_turns: int) -> None:
    assert_shows(f"turned_{quarter_turns}.heic", np.rot90(drawn(), quarter_turns))


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_avif_is_turned_as_it_says(orientation: int) -> None:
    upright = {2: np.fliplr(drawn()), 3: np.rot90(drawn(), 2), 6: np.rot90(drawn(), -1)}
    assert_shows(f"orientation_{orientation}.avif", upright[orientation])


def test_pixels_do_not_change_after_they_were_read() -> None:
    first = [decode(read(name), SPEC) for name in ("colours.heic", "alpha.heic", "turned_2.heic")]
    again = [decode(read(name), SPEC) for name in ("colours.heic", "alpha.heic", "turned_2.heic")]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("name", "size"), [("colours.avif", (64, 48)), ("colours.heic", (64, 64))])
def test_the_size_is_read_without_decoding(name: str, size: tuple[int, int]) -> None:
    """HEVC has pictures of at least 64 lines, of which a crop shows 48."""
    header = read_header(read(name))
    assert (header.format, header.width, header.height) == (name.rpartition(".")[2], *size)


@pytest.mark.parametrize("name", ["colours.heic", "colours.avif"])
def test_a_file_that_is_cut_off_is_damaged(name: str) -> None:
    data = read(name)
    for end in range(16, len(data) - 40, 13):
        with pytest.raises(UndecodableImage, match=r"cut off inside its header|damaged or cut off"):
            decode(data[:end], SPEC)


@pytest.mark.parametrize("name", ["colours.heic", "colours.avif"])
def test_boxes_that_claim_what_is_not_there_are_damage(name: str) -> None:
    data = read(name)
    at = data.index(b"meta") - 4
    for size in (0xFFFFFFFF, 9, 12, 20):
        with pytest.raises(UndecodableImage):
            decode(data[:at] + struct.pack(">I", size) + data[at + 4 :], SPEC)


@pytest.mark.parametrize("name", ["colours.heic", "colours.avif"])
def test_any_byte_may_be_wrong(name: str) -> None:
    """It gives a picture or an ImageError, never another error."""
    data = read(name)
    for at in range(0, len(data), 3):
        spoiled = data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]
        try:
            assert decode(spoiled, SPEC).ndim in (2, 3)
        except Exception as exc:  # noqa: BLE001 - each is looked at
            assert type(exc).__module__ == "app.errors", (at, exc)  # noqa: PT017
