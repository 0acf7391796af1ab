"""How much memory this process may still take."""

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(*, meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
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
    """Return what is left of the limit, counting cached files as free; nothing where there is no limit.

    The files are those of Linux's Documentation/admin-guide/cgroup-v2.rst.
    """
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        facts = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        return [] if limit == "max" else [max(0, int(limit) - used + int(facts.get("inactive_file", 0)))]
    except (OSError, ValueError):
        return []
