"""Find and release leaked leases: those that admission still holds although their owner is over.

A lease outlives its owner only by a defect. The check releases it, so that the service continues. It also reports it,
in the log and in a metric that should stay 0, so that the defect gets fixed.
"""

import structlog

from app.metrics import Metrics
from app.serving.admission import Admission, Lease

_log = structlog.stdlib.get_logger(__name__)


class SelfCheck:
    """Checks one worker's admission periodically. `longest_s` is how long any request may hold a place."""

    def __init__(self, admission: Admission, metrics: Metrics, *, longest_s: float) -> None:
        self._admission = admission
        self._longest_s = longest_s
        self._corrections = metrics.admission_corrections
        self._suspects: set[Lease] = set()

    def look(self) -> str | None:
        """Release each lease whose owner was already over at the last check.

        Return the reason to replace the worker, or None. A worker should be replaced if a place has been held for
        longer than any request may live, or if the worker is full and nothing has been released for that long.
        """
        admission = self._admission
        over = {lease for lease in admission.leases if lease.owner.done()}
        # A task is over a moment before it releases its lease, so one check is not enough.
        leaked, self._suspects = over & self._suspects, over - self._suspects
        if leaked:
            self.correct(leaked)
        now = admission.now()
        oldest = next(iter(admission.leases), None)
        if oldest is not None and now - oldest.since > self._longest_s:
            return f"a place has been held for {now - oldest.since:.0f} s, longer than any request may live"
        if admission.is_full and now - admission.released_at > self._longest_s:
            return f"the service is full, and nothing was released for {now - admission.released_at:.0f} s"
        return None

    def correct(self, leaked: set[Lease]) -> None:
        """Release the leases, and report them."""
        pictures, size = sum(lease.pictures for lease in leaked), sum(lease.size for lease in leaked)
        _log.error("defect", reason="places were not released", leases=len(leaked), pictures=pictures, bytes=size)
        self._corrections.add(len(leaked))
        for lease in leaked:
            lease.end()
