"""Log rejected requests: each can be found by its id, and the number of log lines is bounded.

It knows nothing of HTTP except the fields that it writes.
"""

import asyncio
import time
from dataclasses import dataclass, field

import structlog

IN_FULL_PER_SECOND = 10
"""Rejections of one code in a second that get a line each. A line costs as much as a small inference."""

_IDS_BYTES_PER_SECOND = 64 * 1024
_IDS_BYTES_PER_LINE = 4 * 1024
"""Below the line length limit of container runtimes and journals."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass
class _Held:
    """Rejections of one code that are queued for a shared line."""

    status: int
    count: int = 0
    request_ids: list[str] = field(default_factory=list)


class RejectionLog:
    """Log the first rejections of each code in a second on a line each, and the rest on a shared line a second later.

    Call it from the event loop.
    """

    def __init__(self) -> None:
        self._second_ends = 0.0
        self._in_full: dict[str, int] = {}
        self._held: dict[str, _Held] = {}
        self._room = _IDS_BYTES_PER_SECOND
        self._flush_later: asyncio.TimerHandle | None = None

    def note(self, *, request_id: str, method: str, path: str, status: int, code: str) -> None:
        now = time.monotonic()
        if now >= self._second_ends:
            self._second_ends = now + 1.0
            self._in_full.clear()
        written = self._in_full.get(code, 0)
        if written < IN_FULL_PER_SECOND:
            self._in_full[code] = written + 1
            write = _log.warning if status >= 500 else _log.info
            write("request refused", request_id=request_id, method=method, path=path[:256], status=status, code=code)
        else:
            self._hold(request_id, status, code)

    def flush(self) -> None:
        """Write the queued lines."""
        if self._flush_later is not None:
            self._flush_later.cancel()
            self._flush_later = None
        held, self._held, self._room = self._held, {}, _IDS_BYTES_PER_SECOND
        for code, rejections in held.items():
            write = _log.warning if rejections.status >= 500 else _log.info
            for ids in _in_lines(rejections.request_ids):
                write("requests refused", code=code, count=len(ids), request_ids=ids)
            if unnamed := rejections.count - len(rejections.request_ids):
                write("requests refused", code=code, count=unnamed)

    def _hold(self, request_id: str, status: int, code: str) -> None:
        held = self._held.get(code)
        if held is None:
            held = self._held[code] = _Held(status)
        held.count += 1
        if self._room >= len(request_id):
            self._room -= len(request_id) + 1
            held.request_ids.append(request_id)
        if self._flush_later is None:
            self._flush_later = asyncio.get_running_loop().call_later(1.0, self.flush)


def _in_lines(request_ids: list[str]) -> list[list[str]]:
    """Split the ids into chunks that each fit into a line."""
    lines: list[list[str]] = []
    room = 0
    for request_id in request_ids:
        if room < len(request_id):
            lines.append([])
            room = _IDS_BYTES_PER_LINE
        lines[-1].append(request_id)
        room -= len(request_id) + 1
    return lines
