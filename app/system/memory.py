"""How much memory this process may still take."""

import os
from pathlib import Path

from app.system.cgroup import CGROUPS, numbers, statistics

_MEMINFO = Path("/proc/meminfo")


def available_memory(*, meminfo: Path = _MEMINFO, cgroup: Path = CGROUPS) -> int:
    """Return the bytes that can be taken without swapping, within the limit of a container (cgroup v2).

    Where the system does not say, as on macOS, it is half of what is built in.
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
    """Return what is left of the limit, counting cached files as free; nothing if there is no limit."""
    (limit,), (used,) = numbers(cgroup / "memory.max"), numbers(cgroup / "memory.current")
    if limit is None or used is None:
        return []
    return [max(0, limit - used + int(statistics(cgroup / "memory.stat").get("inactive_file", 0)))]
