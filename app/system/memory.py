"""Measure how much memory this process may still take, and whether others were killed for too little of it."""

import os
from pathlib import Path

from app.system.cgroup import CGROUPS, MEMBERSHIP, groups_of_process, numbers, statistics

_MEMINFO = Path("/proc/meminfo")


def available_memory(*, meminfo: Path = _MEMINFO, cgroup: Path = CGROUPS) -> int:
    """Return the bytes that can be taken without swapping, within the limit of a container (cgroup v2).

    If the system does not report it, as on macOS, return half of the installed memory.
    """
    return min([_of_machine(meminfo), *_of_container(cgroup)])


def kills_by_memory_limit(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return how many processes of this one's control group were killed because its memory limit was reached."""
    for group in groups_of_process("memory", cgroups=cgroups, membership=membership):
        for file in ("memory.events", "memory.oom_control"):  # of version 2 and 1
            if (kills := statistics(group / file).get("oom_kill")) is not None:
                return int(kills)
    return 0


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
