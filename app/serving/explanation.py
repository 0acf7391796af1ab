"""Why a picture was classified as it was: a heat map of one label.

`Rise` makes one for any network: Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
Models" (BMVC 2018, arXiv:1806.07421).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contract.header import ImageHeader
from app.contract.heat_map import canvas, overlay, png_of
from app.contract.preprocessing import Box, Image, PreprocessingSpec, decode, prepare, seen_part

Method = Literal["cam", "rise"]
_CELLS = 7
_PLACES = 28
"""The most places along each side of a map by masks: its masks have no finer detail."""


class ExplanationOptions(NamedTuple):
    """A request's options for an explanation: the label, None for the most probable; and whether the map is drawn."""

    label: str | None = None
    drawn: bool = False

    def index_in(self, labels: Sequence[str], probabilities: NDArray[np.float32]) -> int:
        return int(probabilities.argmax()) if self.label is None else labels.index(self.label)


class View(NamedTuple):
    """A decoded picture: its tensor, the part that the tensor shows, and a picture to draw on if one is wanted."""

    tensor: Image
    box: Box
    canvas: Image | None


class Explanation(NamedTuple):
    """The probabilities (K,) of a picture, and the map (h, w) of the label with this index.

    With "cam", a place's value is the label's logit there; the mean over all places is the label's logit. With "rise",
    it is the label's mean probability over the `masks` masks, weighted by how much of the place each mask shows.
    """

    probabilities: NDArray[np.float32]
    label_index: int
    method: Method
    masks: int
    grid: NDArray[np.float32]
    box: Box
    """The part of the upright picture over which the grid lies."""
    png: bytes | None = None

    def drawn_over(self, view: View) -> bytes | None:
        """Return the picture under its map, as PNG; None if the view has nothing to draw on."""
        return None if view.canvas is None else png_of(overlay(view.canvas, self.grid, self.box))


def view_of(data: bytes, spec: PreprocessingSpec, *, header: ImageHeader, drawn: bool) -> View:
    """Decode a picture once, for the network and for people. Raises an ImageError."""
    image = decode(data, spec, header=header)
    return View(prepare(image, spec), seen_part(image, spec), canvas(image) if drawn else None)


class Rise:
    """Samples the map of one label: asks for the probability of a picture (H, W, C) with parts hidden, again and again.

    A mask hides each of 7 × 7 cells with probability 0.5. It is enlarged smoothly, and shifted by up to a cell. What is
    hidden has the picture's mean colour.
    """

    def __init__(self, tensor: Image) -> None:
        self.masks = 0
        """How many probabilities have been counted."""
        self._random = np.random.default_rng(0)  # the same picture gets the same masks
        self._hidden = tensor.mean(axis=(0, 1), dtype=np.float32)
        self._shown = tensor - self._hidden
        height, width = tensor.shape[:2]
        self._steps = -(-height // _CELLS), -(-width // _CELLS)
        self._enlarged = PreprocessingSpec(
            height=(_CELLS + 1) * self._steps[0],
            width=(_CELLS + 1) * self._steps[1],
            colour="grey",
            interpolation="linear",
        )
        self._places = np.ix_(_middles(height), _middles(width))
        self._mask = np.zeros((height, width), np.float32)
        shape = self._mask[self._places].shape
        self._seen, self._sum = np.full(shape, 1e-9), np.zeros(shape)

    def next_picture(self) -> Image:
        """Return the picture under the next mask. Call `count` with the label's probability."""
        cells = self._random.integers(0, 2, (_CELLS, _CELLS), np.uint8) * np.uint8(255)
        enlarged = prepare(cells, self._enlarged)[..., 0]
        top, left = (int(self._random.integers(step)) for step in self._steps)
        height, width = self._mask.shape
        np.multiply(enlarged[top : top + height, left : left + width], np.float32(1 / 255), out=self._mask)
        masked = self._mask[..., np.newaxis] * self._shown
        masked += self._hidden
        return np.asarray(np.rint(masked), np.uint8)

    def count(self, probability: float) -> None:
        seen = self._mask[self._places]
        self._seen += seen
        self._sum += seen * probability
        self.masks += 1

    @property
    def grid(self) -> NDArray[np.float32]:
        """The label's mean probability by place, weighted by how much of the place the masks show."""
        return np.asarray(self._sum / self._seen, np.float32)


def _middles(side: int) -> NDArray[np.intp]:
    """Return the pixels at the middles of the map's places along a side."""
    places = min(side, _PLACES)
    return ((np.arange(places) + 0.5) * side / places).astype(np.intp)
