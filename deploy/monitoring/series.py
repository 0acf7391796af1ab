"""Names of series for queries, each checked against the registry of the service's metrics.

A family or a label that the service does not have raises UnknownSeries: if a metric is renamed, the
panel that asks for it fails.
"""

from app.metrics import FAMILIES, Family

_OF_THE_TARGET = ("job", "instance")


class UnknownSeries(Exception):
    """A query names what the service does not count."""


class Metric:
    """A family of the registry, from which selectors are made: `REQUESTS.total(status='=~"5.."')`."""

    def __init__(self, name: str) -> None:
        if name not in FAMILIES:
            raise UnknownSeries(f"The service has no metric {name}. app/metrics.py has those that there are.")
        self.name = name
        self.family: Family = FAMILIES[name]

    def total(self, **matchers: str) -> str:
        """Select the series of a counter."""
        return self._select("counter", "_total", matchers)

    def value(self, **matchers: str) -> str:
        """Select the series of a gauge."""
        return self._select("gauge", "", matchers)

    def sum(self, **matchers: str) -> str:
        """Select the sums of a summary or a histogram."""
        return self._select("summary histogram", "_sum", matchers)

    def count(self, **matchers: str) -> str:
        """Select the counts of a summary or a histogram."""
        return self._select("summary histogram", "_count", matchers)

    def buckets(self, **matchers: str) -> str:
        """Select the buckets of a histogram."""
        return self._select("histogram", "_bucket", matchers)

    def up_to(self, bound: float, /, **matchers: str) -> str:
        """Select the bucket of a histogram that ends at a bound."""
        if bound not in self.family.bounds:
            raise UnknownSeries(f"{self.name} has no bound {bound}. It has {self.family.bounds}.")
        return self._select("histogram", "_bucket", {**matchers, "le": f'="{bound}"'})

    def _select(self, kinds: str, suffix: str, matchers: dict[str, str]) -> str:
        if self.family.kind not in kinds.split():
            raise UnknownSeries(f"{self.name} is a {self.family.kind}, not a {kinds}.")
        known = {*self.family.labels, *_OF_THE_TARGET, *(("le",) if suffix == "_bucket" else ())}
        if unknown := matchers.keys() - known:
            raise UnknownSeries(f"{self.name} has no label {', '.join(sorted(unknown))}. It has {self.family.labels}.")
        inside = ",".join(f"{label}{matcher}" for label, matcher in matchers.items())
        return f"{self.name}{suffix}" + (f"{{{inside}}}" if inside else "")


REQUESTS = Metric("imageclass_requests")
ERRORS = Metric("imageclass_errors")
DROPPED = Metric("imageclass_dropped")
STAGE_SECONDS = Metric("imageclass_stage_seconds")
BATCH_SIZE = Metric("imageclass_batch_size")
VERSION_SECONDS = Metric("imageclass_version_seconds")
VERSION_BATCH_SECONDS = Metric("imageclass_version_batch_seconds")
VERSION_PICTURES = Metric("imageclass_version_pictures")
LAST_INFERENCE = Metric("imageclass_version_last_inference_timestamp_seconds")
PREDICTIONS = Metric("imageclass_predictions")
TOP_PROBABILITY = Metric("imageclass_top_probability")
PENDING_PICTURES = Metric("imageclass_pending_pictures")
PENDING_BYTES = Metric("imageclass_pending_bytes")
CORRECTIONS = Metric("imageclass_admission_corrections")
CONNECTIONS = Metric("imageclass_connections")
MODEL_INFO = Metric("imageclass_model_info")
MODEL_LOADS = Metric("imageclass_model_loads")
WORKERS_READY = Metric("imageclass_workers_ready")
RESIDENT_BYTES = Metric("imageclass_resident_bytes")
WORKER_STARTS = Metric("imageclass_worker_starts")
