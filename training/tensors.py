"""Turn pictures into the arrays that a network is trained on, through the preprocessing that serving uses.

Every picture is decoded once, on all cores, straight into its place. It knows nothing of splits, batches or models.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import Image, PreprocessingSpec, prepare, preprocess, use_one_thread_per_picture
from app.engines.cores import available_cores
from app.errors import ImageError
from training.dataset import Picture
from training.errors import DataError, OptionError

_CHUNK = 32
_BAD_SHOWN = 5


@dataclass(frozen=True)
class BadPicture:
    """A picture that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Tensors:
    """`images` (N, H, W, C) uint8, `targets` (N,) int64 indices of labels, and the `pictures` they show, in order."""

    images: Image
    targets: NDArray[np.int64]
    pictures: tuple[Picture, ...]
    skipped: tuple[BadPicture, ...]


def load_tensors(
    pictures: Sequence[Picture],
    spec: PreprocessingSpec,
    labels: Sequence[str],
    *,
    on_bad_image: Literal["skip", "fail"],
    advance: Callable[[int], None] | None = None,
) -> Tensors:
    """Preprocess pictures, and tell `advance` how many more are done as it goes.

    "skip" leaves bad pictures out. Raises DataError where a bad picture is not to be skipped, where a class loses all
    of its pictures, or where a label is not among `labels`; OptionError where the result does not fit in memory.
    """
    targets = _targets(pictures, labels)
    images = _empty(len(pictures), spec)

    def fill(start: int) -> dict[int, BadPicture]:
        bad = {}
        for row in range(start, min(start + _CHUNK, len(pictures))):
            try:
                images[row] = _tensor(pictures[row], spec)
            except (ImageError, DataError) as exc:
                bad[row] = BadPicture(pictures[row].id, str(exc))
        return bad

    use_one_thread_per_picture()
    bad: dict[int, BadPicture] = {}
    starts = range(0, len(pictures), _CHUNK)
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="preprocess") as executor:
        for start, found in zip(starts, executor.map(fill, starts), strict=True):
            bad |= found
            if advance is not None:
                advance(min(_CHUNK, len(pictures) - start))
    if not bad:
        return Tensors(images, targets, tuple(pictures), ())

    skipped = tuple(bad.values())
    if on_bad_image == "fail":
        raise _unusable(skipped, len(pictures))
    kept = [row for row in range(len(pictures)) if row not in bad]
    lost = {picture.label for picture in pictures} - {pictures[row].label for row in kept}
    if lost:
        gone, first = next((pictures[row].label, bad[row]) for row in bad if pictures[row].label in lost)
        raise DataError(f"No picture of class '{gone}' can be used; the first, {first.id}: {first.reason}")
    for row, source in enumerate(kept):  # moved within the array: a second one might not fit in memory
        if row != source:
            images[row] = images[source]
    return Tensors(images[: len(kept)], targets[kept], tuple(pictures[row] for row in kept), skipped)


def _tensor(picture: Picture, spec: PreprocessingSpec) -> Image:
    if isinstance(picture.content, Path):
        return preprocess(picture.encoded(), spec)
    return prepare(picture.content, spec)


def _targets(pictures: Sequence[Picture], labels: Sequence[str]) -> NDArray[np.int64]:
    index = {label: position for position, label in enumerate(labels)}
    unknown = sorted({picture.label for picture in pictures} - index.keys())
    if unknown:
        raise DataError(f"Class '{unknown[0]}' is not one that the model knows: {', '.join(labels)}.")
    return np.array([index[picture.label] for picture in pictures], np.int64)


def _empty(count: int, spec: PreprocessingSpec) -> Image:
    try:
        return np.empty((count, *spec.shape), np.uint8)
    except MemoryError:
        size = f"{count:,} pictures of {spec.width}x{spec.height} pixels"
        raise OptionError(f"{size} do not fit in this machine's memory; choose a smaller size.") from None


def _unusable(bad: Sequence[BadPicture], count: int) -> DataError:
    named = "; ".join(f"{picture.id}: {picture.reason.rstrip('.')}" for picture in bad[:_BAD_SHOWN])
    more = f"; and {len(bad) - _BAD_SHOWN} more" if len(bad) > _BAD_SHOWN else ""
    return DataError(
        f"{len(bad)} of {count} pictures cannot be used: {named}{more}. "
        "Mend or remove them; --on-bad-image skip leaves them out."
    )
