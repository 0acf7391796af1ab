"""Turn pictures into the arrays that a network is trained on, through the preprocessing that serving uses.

Every picture is decoded once, on all cores, directly into its row of the array; later runs read it from the cache
(`training.data.tensor_cache`). It knows nothing of splits, batches or models.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.contract.preprocessing import PreprocessingSpec, prepare, preprocess, use_one_thread_per_picture
from app.errors import ImageError
from app.system.cores import available_cores
from training.data.dataset import Picture
from training.data.tensor_cache import NO_CACHE, Shelf, TensorCache, digest_of, picture_rows
from training.errors import DataError

_CHUNK = 32
_BAD_SHOWN = 5


@dataclass(frozen=True)
class BadPicture:
    """A picture that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Tensors:
    """Preprocessed pictures, their labels, and their sources.

    `images` (N, H, W, C) are mapped from a file if memory has no room; `targets` (N,) are int64 indices of labels;
    `pictures` are in the same order. Images are uint8 pictures in contract form, or float16 outputs of a network's
    first layers.
    """

    images: NDArray[Any]
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
    cache: TensorCache = NO_CACHE,
) -> Tensors:
    """Preprocess pictures, and call `advance` with the number of pictures just done.

    Files whose content is in `cache` are not decoded again. "skip" leaves bad pictures out. Raises UnusablePictures if
    a bad picture is not to be skipped; DataError if a class loses all of its pictures, or if a label is not among
    `labels`; OptionError if the result fits neither in memory nor on the disk.
    """
    targets = _targets(pictures, labels)
    use_one_thread_per_picture()
    with (
        cache.shelf(picture_rows(spec), len(pictures)) as shelf,
        ThreadPoolExecutor(available_cores(), thread_name_prefix="preprocess") as executor,
    ):
        filling = _Filling(pictures, spec, shelf)
        chunks = [range(start, min(start + _CHUNK, len(pictures))) for start in range(0, len(pictures), _CHUNK)]
        for chunk, _ in zip(chunks, executor.map(filling.read, chunks), strict=True):
            if advance is not None:
                advance(len(chunk))
        images = None
        if len(filling.kept) == len(pictures):
            images = shelf.whole([filling.kept[row] for row in range(len(pictures))])
        if images is not None:
            return Tensors(images, targets, tuple(pictures), ())
        list(executor.map(filling.take_kept, chunks))
        bad = dict(sorted(filling.bad.items()))
        if bad and on_bad_image == "fail":
            raise UnusablePictures(tuple(bad.values()), len(pictures))
        rows = [row for row in range(len(pictures)) if row not in bad]
        lost = {picture.label for picture in pictures} - {pictures[row].label for row in rows}
        if lost:
            gone, first = next((pictures[row].label, bad[row]) for row in bad if pictures[row].label in lost)
            raise DataError(f"No picture of class '{gone}' can be used; the first, {first.id}: {first.reason}")
        images = shelf.finish(rows)
    return Tensors(images, targets[rows], tuple(pictures[row] for row in rows), tuple(bad.values()))


class UnusablePictures(DataError):
    """Some of `count` pictures are `bad`, and bad pictures may not be left out."""

    def __init__(self, bad: Sequence[BadPicture], count: int) -> None:
        named = "; ".join(f"{picture.id}: {picture.reason.rstrip('.')}" for picture in bad[:_BAD_SHOWN])
        more = f"; and {len(bad) - _BAD_SHOWN} more" if len(bad) > _BAD_SHOWN else ""
        super().__init__(
            f"{len(bad)} of {count} pictures cannot be used: {named}{more}. Fix or remove them, or leave them out "
            "with --on-bad-image skip."
        )
        self.bad, self.count = tuple(bad), count


class _Filling:
    """Fills a shelf from pictures, by rows, from many threads: first new pictures, then those that earlier runs have
    stored.

    `kept` are the digests of the stored ones by row, and `bad` the pictures that cannot be used.
    """

    def __init__(self, pictures: Sequence[Picture], spec: PreprocessingSpec, shelf: Shelf) -> None:
        self._pictures, self._spec, self._shelf = pictures, spec, shelf
        self.kept: dict[int, bytes] = {}
        self.bad: dict[int, BadPicture] = {}

    def read(self, rows: Iterable[int]) -> None:
        for row in rows:
            self._fill(row, may_be_kept=True)

    def take_kept(self, rows: Iterable[int]) -> None:
        for row in rows:
            if row in self.kept and not self._shelf.take(row, self.kept[row]):
                self._fill(row, may_be_kept=False)

    def _fill(self, row: int, *, may_be_kept: bool) -> None:
        picture = self._pictures[row]
        try:
            if isinstance(picture.content, np.ndarray):
                self._shelf.put(row, None, prepare(picture.content, self._spec))
                return
            data = picture.encoded()
            digest = digest_of(data)
            if may_be_kept and self._shelf.has(digest):
                self.kept[row] = digest
            else:
                self._shelf.put(row, digest, preprocess(data, self._spec))
        except (ImageError, DataError) as exc:
            self.bad[row] = BadPicture(picture.id, str(exc))


def _targets(pictures: Sequence[Picture], labels: Sequence[str]) -> NDArray[np.int64]:
    index = {label: position for position, label in enumerate(labels)}
    unknown = sorted({picture.label for picture in pictures} - index.keys())
    if unknown:
        raise DataError(f"Class '{unknown[0]}' is not one that the model knows: {', '.join(labels)}.")
    return np.array([index[picture.label] for picture in pictures], np.int64)
