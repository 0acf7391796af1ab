"""Measure the processes of one contestant: all descendants, their memory and CPU time."""

import contextlib
import os
import signal
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_TERM_GRACE_S = 8.0


class ProcessTree:
    """Follows a process that leads its own session.

    A process belongs to it if it descends from one that does, shares its session, or was seen to belong before: daemons
    leave their parents, and some overwrite a marker in their environment.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[int, str] = {}  # process id → start time, to recognise recycled ids

    def pids(self) -> list[int]:
        """Return the ids of all live processes."""
        table = _process_table()
        self._seen = {pid: start for pid, start in self._seen.items() if pid in table and table[pid][2] == start}
        members = {pid for pid, (_, session, _) in table.items() if self._root in {session, pid}}
        members |= self._seen.keys()
        grown = True
        while grown:
            children = {pid for pid, (parent, _, _) in table.items() if parent in members} - members
            members |= children
            grown = bool(children)
        self._seen = {pid: table[pid][2] for pid in members if pid in table}
        return sorted(self._seen)

    def proportional_mb(self) -> float:
        """Return the memory of the process tree (PSS): a page that n processes share counts 1/n in each."""
        return sum(_pss_kb(pid) for pid in self.pids()) / 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time that the processes alive now have used."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / _TICKS_PER_S

    def idle_cpu_percent(self, seconds: float) -> float:
        """Wait for `seconds` and return the use of one core in percent."""
        before, began = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return max(0.0, 100 * (self.cpu_seconds() - before) / (time.monotonic() - began))

    def stop(self) -> None:
        """End every process: SIGTERM to the leader's group, then SIGKILL to the rest."""
        self.pids()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._root, signal.SIGTERM)
        deadline = time.monotonic() + _TERM_GRACE_S
        while self._living() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in self._living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _living(self) -> list[int]:
        return [pid for pid in self.pids() if not _is_zombie(pid)]


def _process_table() -> dict[int, tuple[int, int, str]]:
    """Return process id → (parent, session, start time)."""
    table = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            table[int(folder.name)] = (int(fields[1]), int(fields[3]), fields[19])
    return table


def _stat(pid: int) -> list[str]:
    """Return /proc/<pid>/stat from its third field on (proc_pid_stat(5)); empty if the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] == "Z"


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _pss_kb(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
