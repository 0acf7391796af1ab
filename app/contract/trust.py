"""How far a bundle's answers can be trusted: trust.npz, and the numbers that are computed from it.

Two signals say that a picture is unlike those that the network has learned from. *Another kind of picture*: the
distance of its features to the nearest class (Mahalanobis distance of normalised features: Lee et al. 2018,
arXiv:1807.03888; Müller and Hein 2025, arXiv:2505.18032). *Between the classes*: the energy of its logits (Liu et al.
2020, arXiv:2010.03759). Each becomes a conformal p-value by comparison with the same signal of held-out pictures, so
that a threshold is a rate of false alarms. Prediction sets are split conformal: LAC (Sadinle et al. 2019,
arXiv:1609.00451) and APS (Romano et al. 2020, arXiv:2006.02544), without randomisation: a set includes the label that
completes it.

Training makes a `Trust` and services read it; both use these functions.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from app.contract.answer_options import SetMethod

Floats = NDArray[np.float32]

TRUST = "trust.npz"
MAX_TRUST_BYTES = 1_500_000

_VERSION = 1
"""The version of the scores' definition: scores of different definitions cannot be compared.

The first files have none.
"""
_OPTIONAL = ("thumbnails", "thumbnail_ends")
_SORTED = ("kind_scores", "class_scores", "overall_scores", "lac_scores", "aps_scores")


class Familiarity(NamedTuple):
    """The conformal p-values of one picture: the share of familiar pictures that look as strange as it, or stranger."""

    overall: float
    same_kind: float
    clear_class: float


class Neighbour(NamedTuple):
    """A training picture, the index of its label, and the cosine between its features and those of the classified
    picture.

    `thumbnail` is a JPEG, None if the bundle keeps none.
    """

    id: str
    label: int
    similarity: float
    thumbnail: bytes | None = None


@dataclass(frozen=True, eq=False)
class Trust:
    """The arrays of trust.npz.

    `projection` (D, P) takes normalised features into a space in which the pictures of each class scatter evenly in all
    directions about its row of `centres` (K, P). `kernel` (D, K) and `bias` (K,) are the last layer's. `references` (R,
    P) are unit vectors from the middle of all `centres` to training pictures, with `reference_labels` (R,) and
    `reference_ids` (R,). If these have thumbnails, `thumbnails` (B,) has the bytes of all, and `thumbnail_ends` (R,)
    gives the end of each; else both are empty, and left out of the file. The other arrays, (N,), are the sorted scores
    of the N held-out pictures: of both signals; of both together (p-values times N + 1, multiplied, negated); and of
    the prediction sets.
    """

    projection: Floats
    centres: Floats
    kernel: Floats
    bias: Floats
    references: Floats
    reference_labels: NDArray[np.int64]
    reference_ids: NDArray[np.str_]
    kind_scores: NDArray[np.float64]
    class_scores: NDArray[np.float64]
    overall_scores: NDArray[np.float64]
    lac_scores: NDArray[np.float64]
    aps_scores: NDArray[np.float64]
    thumbnails: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    thumbnail_ends: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def held_out(self) -> int:
        return len(self.lac_scores)

    @property
    def least_rate(self) -> float:
        """The lowest rate of false alarms, or of sets without the true label, that this many pictures can support."""
        return 1 / (self.held_out + 1)

    def familiarity(self, features: Floats) -> Familiarity:
        """Return the p-values of a picture from its features, the input of the last layer (D,)."""
        rows = features[None]
        kind = _stranger(self.kind_scores, kind_scores(rows, self.projection, self.centres))
        clear = _stranger(self.class_scores, energies(rows, self.kernel, self.bias))
        overall = _stranger(self.overall_scores, _together(kind + 1, clear + 1))
        return Familiarity(*(float(1 + count[0]) / (self.held_out + 1) for count in (overall, kind, clear)))

    def neighbours(self, features: Floats, count: int = 3) -> list[Neighbour]:
        """Return the nearest training pictures, the nearest first."""
        similarity = self.references @ directions(features[None], self.projection, self.centres)[0]
        return [
            Neighbour(
                str(self.reference_ids[row]),
                int(self.reference_labels[row]),
                float(similarity[row]),
                self._thumbnail(row) if len(self.thumbnail_ends) else None,
            )
            for row in np.argsort(-similarity, kind="stable")[:count]
        ]

    def _thumbnail(self, row: int) -> bytes:
        begin = self.thumbnail_ends[row - 1] if row else 0
        return self.thumbnails[begin : self.thumbnail_ends[row]].tobytes()

    def prediction_set(self, probabilities: Floats, error_rate: float, method: SetMethod) -> list[int]:
        """Return the labels' indices, the most probable first, of a set that misses the truth at that rate.

        A set of LAC may be empty, if no label is likely enough. A set of APS always holds the most probable label. So
        if the model is wrong less often than the requested rate, APS misses less often, too.
        """
        scores = self.lac_scores if method == "lac" else self.aps_scores
        rank = ceil((len(scores) + 1) * (1 - error_rate) - 1e-9)  # 100 · (1 - 0.01) is a little more than 99
        most = scores[rank - 1] if rank <= len(scores) else np.inf
        order = np.argsort(-probabilities, kind="stable")
        found = set_scores(probabilities[None], method)[0]
        return [int(label) for label in order if found[label] <= most]

    @classmethod
    def calibrated(
        cls,
        features: Floats,
        probabilities: Floats,
        targets: NDArray[np.int64],
        *,
        projection: Floats,
        centres: Floats,
        kernel: Floats,
        bias: Floats,
        **references: Any,
    ) -> Self:
        """Calibrate on held-out pictures, by their features (N, D), the answers (N, K), and the true labels (N,)."""
        kind = np.sort(all_kind := kind_scores(features, projection, centres))
        clear = np.sort(all_clear := energies(features, kernel, bias))
        # A held-out picture counts the others, not itself, as a new picture does.
        overall = _together(_stranger(kind, all_kind), _stranger(clear, all_clear))
        rows = np.arange(len(targets))
        return cls(
            projection=projection,
            centres=centres,
            kernel=kernel,
            bias=bias,
            **references,
            kind_scores=kind,
            class_scores=clear,
            overall_scores=np.sort(overall),
            lac_scores=np.sort(set_scores(probabilities, "lac")[rows, targets]),
            aps_scores=np.sort(set_scores(probabilities, "aps")[rows, targets]),
        )

    def to_npz(self) -> bytes:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in _OPTIONAL or len(self.thumbnail_ends)
        }
        arrays["version"] = np.array(_VERSION)
        for name in ("projection", "kernel", "references"):
            arrays[name] = arrays[name].astype(np.float16)
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes, *, features: int, classes: int) -> Self:
        """Read and check the arrays. Raises ValueError with what is wrong."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                version = int(file["version"]) if "version" in file else 1
                names = [each.name for each in fields(cls) if each.name in file or each.name not in _OPTIONAL]
                arrays = {name: file[name] for name in names} if version == _VERSION else {}
        except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as exc:
            raise ValueError(f"it cannot be read ({exc})") from exc
        if version != _VERSION:
            raise ValueError(f"its scores are of version {version}, this release reads version {_VERSION}")
        sizes = {"D": features, "K": classes}
        for name, kind, axes in _SHAPES:
            if name not in arrays:
                continue
            array = arrays[name]
            expected = [sizes.setdefault(axis, size) for axis, size in zip(axes, array.shape, strict=False)]
            if array.dtype.kind != kind or list(array.shape) != expected or array.ndim != len(axes):
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not ({', '.join(axes)})")
            if kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
            if kind == "f":
                arrays[name] = array.astype(np.float64 if name in _SORTED else np.float32)
        for name in _SORTED:
            if (np.diff(arrays[name]) < 0).any():
                raise ValueError(f"{name} is not sorted")
        ends = arrays.get("thumbnail_ends", np.zeros(0, np.int64))
        if len(ends) and (ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] != sizes.get("B")):
            raise ValueError("thumbnail_ends do not fit the thumbnails")
        labels = arrays["reference_labels"]
        if not sizes["N"] or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
            raise ValueError("it has no held-out pictures, or labels that the model does not have")
        return cls(**arrays)


_SHAPES = (
    ("projection", "f", "DP"),
    ("centres", "f", "KP"),
    ("kernel", "f", "DK"),
    ("bias", "f", "K"),
    ("references", "f", "RP"),
    ("reference_labels", "i", "R"),
    ("reference_ids", "U", "R"),
    ("thumbnail_ends", "i", "R"),
    ("thumbnails", "u", "B"),
    *((name, "f", "N") for name in _SORTED),
)
"""Each array, the kind of its numbers, and its axes by the letters that `Trust` gives them."""


def normalised(rows: Floats) -> Floats:
    """Return rows (N, D) of length 1; a row of zeros stays."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def kind_scores(features: Floats, projection: Floats, centres: Floats) -> NDArray[np.float64]:
    """Return the squared Mahalanobis distance of each row (N, D) to the nearest class."""
    places = normalised(features) @ projection
    squared = (places**2).sum(1)[:, None] - 2 * places @ centres.T + (centres**2).sum(1)
    return np.asarray(squared.min(axis=1), np.float64)


def energies(features: Floats, kernel: Floats, bias: Floats) -> NDArray[np.float64]:
    """Return minus the logarithm of the sum of exp(logits) for each row (N, D); large if no class stands out."""
    logits = (features @ kernel + bias).astype(np.float64)
    most = logits.max(axis=1, keepdims=True)
    return -np.asarray(most[:, 0] + np.log(np.exp(logits - most).sum(axis=1)))


def directions(features: Floats, projection: Floats, centres: Floats) -> Floats:
    """Return unit vectors (N, P) from the middle of the classes to each row (N, D)."""
    return normalised(normalised(features) @ projection - centres.mean(axis=0))


def set_scores(probabilities: Floats, method: SetMethod) -> NDArray[np.float64]:
    """Return for each label (N, K) the threshold from which a prediction set includes it.

    For LAC, this is 1 minus the label's probability; for APS, the sum of the probabilities of all likelier labels.
    """
    if method == "lac":
        return 1 - probabilities.astype(np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    falling = np.take_along_axis(probabilities.astype(np.float64), order, axis=1)
    scores = np.empty_like(falling)
    np.put_along_axis(scores, order, np.cumsum(falling, axis=1) - falling, axis=1)
    return scores


def _together(kind: NDArray[np.intp], clear: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return one score for both p-values, given times N + 1: minus their product (Fisher 1925).

    With 341 held-out photos of clothes, it recognises 89 % of photos of hands at a rate of 1 %; the smaller of the two
    p-values recognises 0.3 %.
    """
    return -(kind * clear).astype(np.float64)


def _stranger(held_out: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return how many of the sorted held-out scores are at or above each of `scores`."""
    return len(held_out) - np.searchsorted(held_out, scores, side="left")
