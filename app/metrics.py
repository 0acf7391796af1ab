"""Counters and measurements of the service, in memory that all workers share; each worker alone writes its row.

A number is changed in place, in some tens of nanoseconds, without a lock, a flush or a message; any worker can read the
rows of all. A replacement continues in its predecessor's row, so totals never fall and nothing is counted twice,
however that worker ended. It knows nothing of HTTP, nor of Prometheus: `app.api.routes.metrics` writes the page.
"""

import json
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HEAD_BYTES = 24
_KEY_BYTES = 96 * 1024
_VALUES = 8 * 1024
ROW_BYTES = _HEAD_BYTES + _KEY_BYTES + 8 * _VALUES
"""Bytes of one worker's row: the length of the keys, its last heartbeat, whether it is ready, the keys, and the values,
float64 each."""

_SILENT_S = 5.0
"""Seconds without a heartbeat after which a worker no longer counts as ready."""

_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

Kind = Literal["counter", "gauge", "summary", "histogram"]
Stage = Literal["read", "decode", "queue", "inference", "total"]
OfVersion = Literal["queue", "decode", "success", "failure"]
Dropped = Literal["refused", "expired", "cancelled"]


@dataclass(frozen=True)
class Family:
    """A name on the metrics page, and what it means. `merge` says how the workers' values become one."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    merge: Literal["sum", "max"] = "sum"


FAMILIES: dict[str, Family] = {
    "imageclass_requests": Family(
        "counter",
        "Requests answered; model and version are empty if the request reached no model.",
        ("route", "model", "version", "status"),
    ),
    "imageclass_errors": Family("counter", "Error answers, by their stable code.", ("route", "code")),
    "imageclass_dropped": Family(
        "counter",
        "Pictures that were not classified: rejected on arrival, expired at their deadline, or cancelled because the "
        "client disconnected.",
        ("reason",),
    ),
    "imageclass_stage_seconds": Family(
        "histogram",
        "Seconds spent in each stage: read, decode and queue per picture, inference per batch, total per request.",
        ("model", "stage"),
        _SECONDS,
    ),
    "imageclass_batch_size": Family("histogram", "Pictures in a batch, without padding.", ("model",), _SIZES),
    "imageclass_version_seconds": Family(
        "summary",
        "Seconds by version: queue and decode per picture, success and failure per request.",
        ("model", "version", "of"),
    ),
    "imageclass_version_batch_seconds": Family(
        "summary", "Seconds of inference, by version and batch size.", ("model", "version", "size")
    ),
    "imageclass_version_pictures": Family("counter", "Pictures classified, by version.", ("model", "version")),
    "imageclass_version_last_inference_timestamp_seconds": Family(
        "gauge",
        "Unix time, in seconds, at which a version last classified a picture.",
        ("model", "version"),
        merge="max",
    ),
    "imageclass_predictions": Family(
        "counter",
        "Pictures classified, by their most probable label; only for models with at most 100 labels.",
        ("model", "label"),
    ),
    "imageclass_top_probability": Family(
        "histogram", "Probability of a picture's most probable label.", ("model",), _PROBABILITIES
    ),
    "imageclass_pending_pictures": Family("gauge", "Pictures in flight, from upload to answer."),
    "imageclass_pending_bytes": Family("gauge", "Bytes held by uploads and by pictures that are being decoded."),
    "imageclass_admission_corrections": Family(
        "counter", "Places in the queue that an ended request had not released; above 0, please report a bug."
    ),
    "imageclass_connections": Family("gauge", "Open client connections."),
    "imageclass_model_info": Family(
        "gauge", "1 for each version that is being served.", ("model", "version", "engine", "precision"), merge="max"
    ),
    "imageclass_model_loads": Family(
        "counter",
        "Attempts to load a version; outcome is live, preview, or the code of the reason why it was rejected.",
        ("model", "version", "outcome"),
    ),
    "imageclass_workers_ready": Family("gauge", "Worker processes that accept requests."),
    "imageclass_resident_bytes": Family(
        "gauge", "Resident memory of a worker process, including memory shared with the others.", ("worker",)
    ),
    "imageclass_worker_starts": Family(
        "counter", "Worker processes started; a value above the number of workers shows that some were replaced."
    ),
}


class Counter:
    """One number of this worker."""

    __slots__ = ("_index", "_values")

    def __init__(self, values: "memoryview[float]", index: int, _bounds: Sequence[float] = ()) -> None:
        self._values = values
        self._index = index

    def add(self, amount: float = 1.0) -> None:
        self._values[self._index] += amount


class Gauge(Counter):
    """One number of this worker that may fall."""

    __slots__ = ()

    def set(self, value: float) -> None:
        self._values[self._index] = value

    @property
    def value(self) -> float:
        return self._values[self._index]


class Summary:
    """The sum of values of this worker, and how many there were."""

    __slots__ = ("_index", "_values")

    def __init__(self, values: "memoryview[float]", index: int, _bounds: Sequence[float] = ()) -> None:
        self._values = values
        self._index = index

    def observe(self, value: float) -> None:
        self._values[self._index] += value
        self._values[self._index + 1] += 1.0


class Histogram:
    """How often values of this worker fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_index", "_values")

    def __init__(self, values: "memoryview[float]", index: int, bounds: Sequence[float]) -> None:
        self._values = values
        self._index = index
        self._bounds = bounds

    def observe(self, value: float) -> None:
        values, index = self._values, self._index
        values[index] += value
        values[index + 1 + bisect_left(self._bounds, value)] += 1.0

    def observe_many(self, counts: Iterable[float], total: float) -> None:
        """Count values that are in their buckets already, as `bisect_left` would place them; `total` is their sum."""
        values, index = self._values, self._index
        values[index] += total
        for bucket, count in enumerate(counts, index + 1):
            values[bucket] += count


_Number = TypeVar("_Number", Counter, Gauge, Summary, Histogram)


@dataclass(frozen=True)
class Series:
    """One series of one worker: its family, its label values in the family's order, and its numbers.

    A counter or gauge has one number; a summary its sum and its count; a histogram its sum and then the count of each
    bucket, the last above all bounds.
    """

    family: str
    labels: tuple[str, ...]
    numbers: tuple[float, ...]


class _Row:
    """A worker's part of the memory. Keys are only ever added, so an index stays valid."""

    def __init__(self, memory: "Buffer") -> None:
        view = memoryview(memory).cast("B")
        if len(view) != ROW_BYTES:
            raise ValueError(f"a row has {ROW_BYTES} bytes, not {len(view)}")
        self._length: memoryview[int] = view[:8].cast("Q")
        self.head: memoryview[float] = view[8:_HEAD_BYTES].cast("d")
        self._keys = view[_HEAD_BYTES : _HEAD_BYTES + _KEY_BYTES]
        self.values: memoryview[float] = view[_HEAD_BYTES + _KEY_BYTES :].cast("d")

    @cached_property
    def _indices(self) -> dict[tuple[str, ...], int]:
        """The offset of each series.

        Only the process that writes this row uses it. The first use reads the series that the row already holds.
        """
        return {(family, *labels): index for family, labels, index, _ in self._entries()}

    @cached_property
    def _end(self) -> int:
        return max((index + count for _, _, index, count in self._entries()), default=0)

    def read(self) -> Iterator[Series]:
        for family, labels, index, count in self._entries():
            yield Series(family, tuple(labels), tuple(self.values[index : index + count]))

    def index_of(self, family: str, labels: Sequence[str], count: int) -> int:
        """Return the offset of the numbers of a series, making room for them if it is new.

        If there is no room left, a new series is counted into the last numbers, which nobody reads.
        """
        known = self._indices.get((family, *labels))
        if known is not None:
            return known
        end = self._end
        key = json.dumps([family, list(labels), end, count]).encode() + b"\n"
        used = self._length[0]
        if used + len(key) > _KEY_BYTES or end + count > _VALUES - _MOST_NUMBERS:
            return _VALUES - _MOST_NUMBERS
        self._keys[used : used + len(key)] = key
        self._length[0] = used + len(key)  # last, so that a reader never sees half a key
        self._indices[family, *labels] = end
        self._end = end + count
        return end

    def _entries(self) -> Iterator[tuple[str, list[str], int, int]]:
        for line in bytes(self._keys[: self._length[0]]).splitlines():
            family, labels, index, count = json.loads(line)
            yield family, labels, index, count


_LAST_SIGN, _READY = 0, 1  # in the head of a row

_MOST_NUMBERS = max(len(family.bounds) for family in FAMILIES.values()) + 2


class Metrics:
    """The metrics of one worker, in row `worker` of `rows`.

    Without these arguments, there is a single row for this process.
    """

    def __init__(self, rows: "Sequence[Buffer] | None" = None, worker: int = 0) -> None:
        self._rows = [_Row(memory) for memory in (rows if rows is not None else [bytearray(ROW_BYTES)])]
        self._own = self._rows[worker]
        self._cached: dict[tuple[str, ...], Counter | Gauge | Summary | Histogram] = {}
        self.worker = worker

    def request(self, route: str, model: str, version: str, status: str) -> Counter:
        return self._counter("imageclass_requests", route, model, version, status)

    def error(self, route: str, code: str) -> Counter:
        return self._counter("imageclass_errors", route, code)

    def dropped(self, reason: Dropped) -> Counter:
        return self._counter("imageclass_dropped", reason)

    def stage(self, model: str, stage: Stage) -> Histogram:
        return self._histogram("imageclass_stage_seconds", model, stage)

    def batch_size(self, model: str) -> Histogram:
        return self._histogram("imageclass_batch_size", model)

    def version_seconds(self, model: str, version: str, of: OfVersion) -> Summary:
        return self._summary("imageclass_version_seconds", model, version, of)

    def version_batch_seconds(self, model: str, version: str, size: int) -> Summary:
        return self._summary("imageclass_version_batch_seconds", model, version, str(size))

    def version_pictures(self, model: str, version: str) -> Counter:
        return self._counter("imageclass_version_pictures", model, version)

    def predictions(self, model: str, label: str) -> Counter:
        return self._counter("imageclass_predictions", model, label)

    def top_probability(self, model: str) -> Histogram:
        return self._histogram("imageclass_top_probability", model)

    def version_last_inference(self, model: str, version: str) -> Gauge:
        return self._gauge("imageclass_version_last_inference_timestamp_seconds", model, version)

    def model_info(self, model: str, version: str, engine: str, precision: str) -> Gauge:
        return self._gauge("imageclass_model_info", model, version, engine, precision)

    def model_load(self, model: str, version: str, outcome: str) -> Counter:
        return self._counter("imageclass_model_loads", model, version, outcome)

    @cached_property
    def pending_pictures(self) -> Gauge:
        return self._gauge("imageclass_pending_pictures")

    @cached_property
    def pending_bytes(self) -> Gauge:
        return self._gauge("imageclass_pending_bytes")

    @cached_property
    def admission_corrections(self) -> Counter:
        return self._counter("imageclass_admission_corrections")

    @cached_property
    def connections(self) -> Gauge:
        return self._gauge("imageclass_connections")

    def begin(self) -> None:
        """Count this worker as started, and reset its predecessor's gauges."""
        self.vacate()
        self._counter("imageclass_worker_starts").add()

    def vacate(self) -> None:
        """Reset this worker's gauges, because it has ended; its counters persist."""
        self._own.head[_LAST_SIGN] = self._own.head[_READY] = 0.0
        for series in self._own.read():
            if FAMILIES[series.family].kind == "gauge":
                self._gauge(series.family, *series.labels).set(0.0)

    @property
    def last_sign_of_life(self) -> float:
        """The last heartbeat of the worker in this row, on the monotonic clock that all processes share."""
        return self._own.head[_LAST_SIGN]

    def sign_of_life(self, *, resident_bytes: int | None = None) -> None:
        self._own.head[_LAST_SIGN] = time.monotonic()
        if resident_bytes is not None:
            self._gauge("imageclass_resident_bytes", str(self.worker)).set(resident_bytes)

    def set_ready(self, *, ready: bool) -> None:
        self._own.head[_READY] = float(ready)

    def workers_ready(self) -> int:
        """Return how many workers are ready and have had a recent heartbeat."""
        now = time.monotonic()
        return sum(row.head[_READY] == 1.0 and now - row.head[_LAST_SIGN] < _SILENT_S for row in self._rows)

    def read(self) -> dict[str, dict[tuple[str, ...], list[float]]]:
        """Return the numbers of all workers together, by family and label values, in the form of `Series`."""
        found: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in FAMILIES}
        found["imageclass_workers_ready"] = {(): [float(self.workers_ready())]}
        for row in self._rows:
            for series in row.read():
                before = found[series.family].get(series.labels)
                merge = max if FAMILIES[series.family].merge == "max" else _sum
                found[series.family][series.labels] = (
                    list(series.numbers)
                    if before is None
                    else [merge(one, other) for one, other in zip(before, series.numbers, strict=True)]
                )
        return found

    def _counter(self, family: str, *labels: str) -> Counter:
        return self._cached_or(Counter, family, labels, 1)

    def _gauge(self, family: str, *labels: str) -> Gauge:
        return self._cached_or(Gauge, family, labels, 1)

    def _summary(self, family: str, *labels: str) -> Summary:
        return self._cached_or(Summary, family, labels, 2)

    def _histogram(self, family: str, *labels: str) -> Histogram:
        return self._cached_or(Histogram, family, labels, len(FAMILIES[family].bounds) + 2)

    def _cached_or(self, kind: type[_Number], family: str, labels: tuple[str, ...], count: int) -> _Number:
        key = (family, *labels)
        found = self._cached.get(key)
        if found is None:
            index = self._own.index_of(family, labels, count)
            found = self._cached[key] = kind(self._own.values, index, FAMILIES[family].bounds)
        return found  # type: ignore[return-value]  # a family is of one kind


def _sum(one: float, other: float) -> float:
    return one + other
