"""Measure how much memory this process may still take."""

import os
from pathlib import Path

from app.system.cgroup import CGROUPS, numbers, statistics

_MEMINFO = Path("/proc/meminfo")


def available_memory(*, meminfo: Path = _MEMINFO, cgroup: Path = CGROUPS) -> int:
    """Return the bytes that can be taken without swapping, within the limit of a container (cgroup v2).

    If the system does not report it, as on macOS, return half of the installed memory.
    """
    return min([_of_machine(meminfo), *_of_container(cgroup)])


def _of_machine(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _of_container(cgroup: Path) -> list[int]:
    """Return the rest of the limit in a list, counting cached files as free; an empty list without a limit."""
    (limit,), (used,) = numbers(cgroup / "memory.max"), numbers(cgroup / "memory.current")
    if limit is None or used is None:
        return []
    return [max(0, limit - used + int(statistics(cgroup / "memory.stat").get("inactive_file", 0)))]
