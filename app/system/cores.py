"""Count the cores that this process may use, by its CPU affinity and its control group's CPU quota."""

import os
from pathlib import Path

from app.system.cgroup import CGROUPS, MEMBERSHIP, groups_of_process, numbers


def available_cores(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the number of cores that this process may use, at least 1; a quota of 1.5 cores counts as 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(group) for group in groups_of_process("cpu", cgroups=cgroups, membership=membership))
    return max(1, min([cores, *(int(quota) for quota in quotas if quota is not None)]))


def _quota(group: Path) -> float | None:
    """Return the quota of one control group in cores, or None if it has none."""
    quota, period = numbers(group / "cpu.max", 2)
    if quota is None:
        (quota,), (period,) = numbers(group / "cpu.cfs_quota_us"), numbers(group / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None
