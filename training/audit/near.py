"""Find near duplicates among thumbnails: propose pairs, align them, and accept those that stand out.

It knows nothing of files, labels or splits. Of several equal pictures it must be given only one.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from app.contract.preprocessing import Image, PreprocessingSpec, prepare
from app.system.cores import available_cores
from training.audit.details import Laid, detail_correlation
from training.audit.neighbours import Candidates, Rows, Thumbnails, candidates, has_even_border, searches
from training.audit.pairs import NearPair
from training.audit.registration import (
    Alignment,
    Floats,
    align_by_shift,
    correlation,
    correlation_with_clipping,
    refine,
)
from training.progress import Advance, Reporter

_CANDIDATES_EACH = 4  # for 49 of 50 planted copies, the original is the nearest of all by one of the descriptors
_COARSE = 0.7  # of the side: at half of it, a small picture's shift by an odd number of pixels blurs away
_LARGEST_COARSE_SIDE = 24
_COARSE_STEPS, _FINE_STEPS = 2, 3
_KEPT_EACH = 3
_COARSE_FLOOR = 0.9
_SMOOTH = 0.6  # pixels: two ways of resampling may differ by this much
_BLURS = (0.0, 0.5, 0.7, 0.9, 1.1, 1.4, 1.8)  # pixels, tried to make the sharper of two pictures as soft as the other
_AT_ONCE = 500
_READ_AT_ONCE = 50
_WHITE = 250
_SOME = 0.02
_STANDS_OUT = 0.3
_ALL_BUT_EQUAL = 0.0015
# Limits of thumbnails if details are compared as well: these are looser, because thumbnails then only propose pairs.
_PROPOSED, _PROPOSED_STANDS_OUT = 2.8, 0.4
_DETAILS_MAY_DIFFER = 4.0  # times as much as thumbnails: copies were compressed and resampled
_DETAILS_STAND_OUT = 0.08
_USUAL_OF = 100  # pairs


@dataclass(frozen=True, slots=True)
class AlignedPairs:
    """Aligned candidate pairs, (M,): the similarity of each pair, and of each picture to its other candidates.

    `usual` is the median of 1 - correlation over a picture's candidates, the smaller one of the pair's two. `drawn`
    says that both are drawings on an even ground.
    """

    pairs: Candidates
    alignment: Alignment
    correlation: Floats
    usual: Floats
    drawn: NDArray[np.bool_]


def align_candidates(thumbnails: Thumbnails, queries: Rows, reporter: Reporter) -> AlignedPairs:
    """Return the likely near duplicates of the query rows among thumbnails (N, S, S), with the figures for
    `is_near`."""
    with threadpool_limits(limits=1, user_api="blas"):  # the threads here are our own
        even = has_even_border(thumbnails)
        with reporter.task("comparing pictures", searches(even, queries)) as advance:
            found = candidates(
                thumbnails, queries, even, each=_CANDIDATES_EACH, advance=lambda count: advance(count, "")
            )
        side = thumbnails.shape[1]
        coarse_side = min(_LARGEST_COARSE_SIDE, round(side * _COARSE))
        small = _levelled(thumbnails, coarse_side, side / coarse_side / 1.4)
        with reporter.task("aligning pairs", len(found.first)) as advance:
            alignment, likeness = _aligned(small, found, None, _COARSE_STEPS, advance)
        usual = _usual(found, likeness, queries, len(thumbnails))
        kept = _best_of_each(found, likeness)
        found = Candidates(found.first[kept], found.second[kept], found.mirrored[kept])
        start = alignment.of(kept).scaled(side / coarse_side)
        with reporter.task("aligning the likely pairs exactly", len(found.first)) as advance:
            alignment, likeness = _aligned(thumbnails, found, start, _FINE_STEPS, advance)
        softness = _softness(thumbnails)
        likeness = np.maximum(likeness, _equally_soft(thumbnails, found, alignment, softness))
        clipped = (thumbnails >= _WHITE).mean(axis=(1, 2)) > _SOME
        rows = np.flatnonzero(clipped[found.first] | clipped[found.second])
        likeness[rows] = np.maximum(likeness[rows], _with_clipping(thumbnails, found, alignment, rows))
    usual_of_pair = np.minimum(usual[found.first], usual[found.second])
    return AlignedPairs(found, alignment, likeness, usual_of_pair, even[found.first] & even[found.second])


def near_pairs(
    thumbnails: Thumbnails,
    queries: Rows,
    *,
    threshold: float,
    reporter: Reporter,
    read: Callable[[int], Image] | None = None,
) -> list[NearPair]:
    """Return the near duplicates of the query rows among thumbnails (N, S, S), best first.

    If pictures have more detail than thumbnails, `read` returns the picture of a row at the size of
    `training.audit.details`; the details then decide.
    """
    if len(thumbnails) < 2 or not len(queries):
        return []
    found = align_candidates(thumbnails, queries, reporter)
    side = thumbnails.shape[1]
    if read is None:
        accepted, likeness = np.flatnonzero(is_near(found, threshold)), found.correlation
    else:
        accepted, likeness = _agreeing(found, side, threshold, read, reporter)
    pairs: dict[tuple[int, int], NearPair] = {}
    for row in accepted[np.argsort(-likeness[accepted], kind="stable")]:
        pair = NearPair(
            first=int(found.pairs.first[row]),
            second=int(found.pairs.second[row]),
            correlation=float(likeness[row]),
            mirrored=bool(found.pairs.mirrored[row]),
            degrees=float(np.degrees(found.alignment.turn[row])),
            scale=float(np.exp(found.alignment.zoom[row])),
            shift_x=float(found.alignment.shift[row, 0]) / side,
            shift_y=float(found.alignment.shift[row, 1]) / side,
        )
        pairs.setdefault((pair.first, pair.second), pair)  # a symmetric picture is its own mirror image
    return list(pairs.values())


def is_near(found: AlignedPairs, threshold: float) -> NDArray[np.bool_]:
    """Say which of the aligned pairs are near duplicates.

    A pair must be alike, and much more alike than is usual among its neighbours, since any two plain strokes are alike.
    A pair that is almost equal needs no such evidence. Drawings have to be twice as alike: their even ground agrees by
    itself.
    """
    difference = 1 - found.correlation
    allowed = np.where(found.drawn, (1 - threshold) / 2, 1 - threshold)
    stands_out = (difference < allowed) & (difference < found.usual * _STANDS_OUT)
    near: NDArray[np.bool_] = stands_out | (difference < _ALL_BUT_EQUAL)
    return near


def _agreeing(
    found: AlignedPairs, side: int, threshold: float, read: Callable[[int], Image], reporter: Reporter
) -> tuple[Rows, Floats]:
    """Return the rows of pairs whose details agree, and the correlations of details, (M,); 0 if they were not compared.

    Details have to agree far better than those of other pictures that look alike: parts off one production line agree
    in nearly all of them.
    """
    difference = 1 - found.correlation
    stands_out = difference < found.usual * _PROPOSED_STANDS_OUT
    is_proposed = stands_out & (difference < (1 - threshold) * _PROPOSED)
    proposed, others = np.flatnonzero(is_proposed), np.flatnonzero(~is_proposed)
    sample = others[:: max(1, len(others) // _USUAL_OF)][:_USUAL_OF] if len(proposed) else others[:0]

    def look(rows: Rows) -> Floats:
        return np.array([_details_of(found, row, side, read) for row in rows], np.float32)

    likeness = np.zeros(len(difference), np.float32)
    with reporter.task("comparing the details of likely pairs", len(proposed) + len(sample)) as advance:
        for rows, seen in _in_parts(look, np.concatenate([proposed, sample]), at_once=_READ_AT_ONCE):
            likeness[rows] = seen
            advance(len(rows), "")
    usual = 1 - float(np.median(likeness[sample])) if len(sample) else 1.0
    allowed = min((1 - threshold) * _DETAILS_MAY_DIFFER, usual * _DETAILS_STAND_OUT)
    return proposed[1 - likeness[proposed] < allowed], likeness


def _details_of(found: AlignedPairs, row: int, side: int, read: Callable[[int], Image]) -> float:
    x, y = (float(pixels) / side for pixels in found.alignment.shift[row])
    turn, zoom = float(found.alignment.turn[row]), float(found.alignment.zoom[row])
    laid = Laid((x, y), turn, zoom, bool(found.pairs.mirrored[row]))
    return detail_correlation(read(int(found.pairs.first[row])), read(int(found.pairs.second[row])), laid)


def _aligned(
    images: Floats | Thumbnails, pairs: Candidates, start: Alignment | None, steps: int, advance: Advance
) -> tuple[Alignment, Floats]:
    """Return the pairs' alignments and correlations; thumbnails are smoothed and levelled on the way."""

    def part(rows: Rows) -> tuple[Alignment, Floats]:
        first, second = (_level(images) for images in _taken(images, pairs, rows))
        begin = align_by_shift(first, second) if start is None else start.of(rows)
        alignment = refine(first, second, begin, steps=steps)
        return alignment, correlation(first, second, alignment)

    alignment = Alignment(*(np.zeros((len(pairs.first), *tail), np.float32) for tail in ((2,), (), ())))
    likeness = np.zeros(len(pairs.first), np.float32)
    for rows, (found, alike) in _in_parts(part, np.arange(len(pairs.first))):
        alignment.shift[rows], alignment.turn[rows], alignment.zoom[rows] = found.shift, found.turn, found.zoom
        likeness[rows] = alike
        advance(len(rows), "")
    return alignment, likeness


def _softness(thumbnails: Thumbnails) -> Floats:
    """Return the strength of edges, (N, blurs), of every thumbnail at every blur that is tried."""

    def part(rows: Rows) -> Floats:
        levelled = _level(thumbnails[rows])
        return np.stack([_edges(_blurred(levelled, blur)) for blur in _BLURS], axis=1)

    found = np.zeros((len(thumbnails), len(_BLURS)), np.float32)
    for rows, edges in _in_parts(part, np.arange(len(thumbnails))):
        found[rows] = edges
    return found


def _equally_soft(thumbnails: Thumbnails, pairs: Candidates, alignment: Alignment, softness: Floats) -> Floats:
    """Return each pair's correlation after the sharper picture is blurred as much as the other.

    Resizing leaves a copy softer. The result is 0 for a pair that is equally soft already.
    """
    target = np.minimum(softness[pairs.first, 0], softness[pairs.second, 0])[:, None]
    blur_first = np.abs(softness[pairs.first] - target).argmin(axis=1)
    blur_second = np.abs(softness[pairs.second] - target).argmin(axis=1)

    def part(rows: Rows) -> Floats:
        first, second = (_level(images) for images in _taken(thumbnails, pairs, rows))
        for images, blurs in ((first, blur_first[rows]), (second, blur_second[rows])):
            for row in np.flatnonzero(blurs):
                images[row] = cv2.GaussianBlur(images[row], (0, 0), _BLURS[blurs[row]])
        return correlation(first, second, alignment.of(rows))

    likeness = np.zeros(len(pairs.first), np.float32)
    for rows, found in _in_parts(part, np.flatnonzero((blur_first > 0) | (blur_second > 0))):
        likeness[rows] = found
    return likeness


def _with_clipping(thumbnails: Thumbnails, pairs: Candidates, alignment: Alignment, chosen: Rows) -> Floats:
    def part(rows: Rows) -> Floats:
        first, second = (_blurred(images.astype(np.float32), _SMOOTH) for images in _taken(thumbnails, pairs, rows))
        return correlation_with_clipping(first, second, alignment.of(rows))

    found = [likeness for _, likeness in _in_parts(part, chosen)]
    return np.concatenate(found) if found else np.empty(0, np.float32)


def _in_parts(work: Callable[[Rows], Any], rows: Rows, *, at_once: int = _AT_ONCE) -> Iterator[tuple[Rows, Any]]:
    parts = [rows[begin : begin + at_once] for begin in range(0, len(rows), at_once)]
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="near") as executor:
        yield from zip(parts, executor.map(work, parts), strict=True)


def _taken(images: NDArray[Any], pairs: Candidates, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the two pictures of each of the pairs, the second mirrored if the pair says so."""
    second = images[pairs.second[rows]]
    return images[pairs.first[rows]], np.where(pairs.mirrored[rows][:, None, None], second[..., ::-1], second)


def _best_of_each(pairs: Candidates, likeness: Floats) -> Rows:
    """Return, in order, the pairs that are among the best few pairs of one of their two pictures."""
    both = np.concatenate([pairs.first, pairs.second])
    order = np.lexsort((-np.concatenate([likeness, likeness]), both))
    grouped = both[order]
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    best = np.minimum(place[: len(likeness)], place[len(likeness) :])
    return np.flatnonzero((best < _KEPT_EACH) & (likeness > _COARSE_FLOOR))


def _usual(pairs: Candidates, likeness: Floats, queries: Rows, count: int) -> Floats:
    """Return the median of 1 - correlation over the candidates of each query, (N,); 1 for others."""
    both = np.concatenate([pairs.first, pairs.second])
    order = np.lexsort((np.concatenate([likeness, likeness]), both))
    begin = np.searchsorted(both[order], np.arange(count))
    end = np.searchsorted(both[order], np.arange(count), side="right")
    values = np.concatenate([likeness, likeness])[order]
    usual = np.ones(count, np.float32)
    some = queries[end[queries] > begin[queries]]
    usual[some] = 1 - values[(begin[some] + end[some] - 1) // 2]
    return usual


def _levelled(thumbnails: Thumbnails, side: int, smooth: float) -> Floats:
    """Return pictures (N, side, side), smoothed, of mean 0 and deviation 1."""
    spec = PreprocessingSpec(height=side, width=side, colour="grey")

    def part(rows: Rows) -> Floats:
        images = [prepare(cv2.GaussianBlur(thumbnail, (0, 0), smooth), spec)[..., 0] for thumbnail in thumbnails[rows]]
        return _level(np.stack(images).astype(np.float32))

    levelled = np.empty((len(thumbnails), side, side), np.float32)
    for rows, images in _in_parts(part, np.arange(len(thumbnails))):
        levelled[rows] = images
    return levelled


def _level(images: Floats | Thumbnails) -> Floats:
    """Return pictures of mean 0 and deviation 1; full-size thumbnails are smoothed first."""
    levelled = images if images.dtype == np.float32 else _blurred(images.astype(np.float32), _SMOOTH)
    levelled = levelled - levelled.mean(axis=(1, 2), keepdims=True)
    result: Floats = levelled / (levelled.std(axis=(1, 2), keepdims=True) + np.float32(1e-3))
    return result


def _blurred(images: Floats, sigma: float) -> Floats:
    if sigma == 0:
        return images
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])


def _edges(images: Floats) -> Floats:
    """Return the mean squared step between neighbouring pixels over the variance, (N,)."""
    steps = np.square(np.diff(images, axis=1)).mean(axis=(1, 2)) + np.square(np.diff(images, axis=2)).mean(axis=(1, 2))
    result: Floats = steps / (images.var(axis=(1, 2)) + np.float32(1e-6))
    return result
