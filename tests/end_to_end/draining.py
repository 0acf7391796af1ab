"""A service whose log is read all along: a pipe that nobody reads would stop it after some hundred refusals."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import Service, assert_nothing_leaked

_STOP_TIMEOUT_S = 60


class DrainingService(Service):
    """Waits until every worker is ready, and reads on from then."""

    def __init__(self, store: Path, **settings: Any) -> None:
        super().__init__(store, **settings)
        self.wait_until_ready(int(settings.get("workers", 1)))
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        self._reader.start()

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        code = self.process.wait(_STOP_TIMEOUT_S)
        self._reader.join(_STOP_TIMEOUT_S)
        assert_nothing_leaked(self.rest)
        return code

    @property
    def children(self) -> list[int]:
        """The process ids of its workers."""
        pid = self.process.pid
        return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    @property
    def memory_mb(self) -> float:
        """What it and its children hold for themselves alone: anonymous memory, without the libraries that they map."""
        return sum(_anonymous_kb(pid) for pid in (self.process.pid, *self.children)) / 1024

    def _read_on(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            rest = list(lines)
        self.stray = [line for line in rest if not line.startswith("{")]
        self.rest = [json.loads(line) for line in rest if line.startswith("{")]


def _anonymous_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:"))
