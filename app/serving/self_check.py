"""Compare what admission holds with what owners own, and take back what nobody does.

A lease outlives its owner only by a defect. It is corrected, so that the service goes on, and told, so that somebody
mends the defect: in the log, and in a metric that should stay 0.
"""

import structlog

from app.metrics import Metrics
from app.serving.admission import Admission, Lease

_log = structlog.stdlib.get_logger(__name__)


class SelfCheck:
    """Looks at one worker's admission, now and then. `longest_s` is how long any request may hold a place."""

    def __init__(self, admission: Admission, metrics: Metrics, *, longest_s: float) -> None:
        self._admission = admission
        self._longest_s = longest_s
        self._corrections = metrics.admission_corrections
        self._suspects: set[Lease] = set()

    def look(self) -> str | None:
        """Take back each lease whose owner was over at the last look, too. Return why the worker should be replaced.

        A worker is not helped by more patience if a place has been held for longer than any request may live, or if it
        is full and nothing has been given back for that long.
        """
        admission = self._admission
        over = {lease for lease in admission.leases if lease.owner.done()}
        # A task is over a moment before what it holds is given back, so one look is not enough.
        leaked, self._suspects = over & self._suspects, over - self._suspects
        if leaked:
            self.correct(leaked)
        now = admission.now()
        oldest = next(iter(admission.leases), None)
        if oldest is not None and now - oldest.since > self._longest_s:
            return f"a place has been held for {now - oldest.since:.0f} s, longer than any request may live"
        if admission.is_full and now - admission.given_back_at > self._longest_s:
            return f"the service is full, and nothing was given back for {now - admission.given_back_at:.0f} s"
        return None

    def correct(self, leaked: set[Lease]) -> None:
        """Take the leases back, and tell."""
        pictures, size = sum(lease.pictures for lease in leaked), sum(lease.size for lease in leaked)
        _log.error("defect", reason="places were not given back", leases=len(leaked), pictures=pictures, bytes=size)
        self._corrections.add(len(leaked))
        for lease in leaked:
            lease.end()
