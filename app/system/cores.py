"""How many cores this process may use: its CPU affinity, and the CPU quota of its control group."""

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores(*, cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the number of cores that this process may use, at least 1; a quota of 1.5 cores counts as 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(cgroups, membership))]))


def _quotas(cgroups: Path, membership: Path) -> list[float]:
    """Return the quotas, in cores, of this process's control group and of all groups around it.

    The files are those of Linux's Documentation/admin-guide/cgroup-v2.rst and of version 1's sched-bwc.rst. In a
    container the group usually appears as the root of its file system.
    """
    try:
        entries = [line.split(":", 2) for line in membership.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for entry in entries:
        if len(entry) != 3:
            continue
        _, controllers, group = entry
        folder = cgroups if not controllers else cgroups / "cpu" if "cpu" in controllers.split(",") else None
        if folder is not None:
            here = folder / group.lstrip("/")
            for ancestor in (here, *here.parents):
                found.append(_quota(ancestor))
                if ancestor == folder:
                    break
    return [quota for quota in found if quota is not None]


def _quota(group: Path) -> float | None:
    """Return the quota of one control group in cores, or None where it has none."""
    quota, period = _numbers(group / "cpu.max")
    if quota is None:
        (quota,), (period,) = _numbers(group / "cpu.cfs_quota_us", 1), _numbers(group / "cpu.cfs_period_us", 1)
    return quota / period if quota and period and quota > 0 else None


def _numbers(file: Path, count: int = 2) -> list[int | None]:
    """Return the first numbers in a file; None for each that is missing or, like "max", no number."""
    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        words = []
    numbers = [int(word) if word.removeprefix("-").isdecimal() else None for word in words[:count]]
    return numbers + [None] * (count - len(numbers))
