"""Number of CPU cores available to this process: its affinity and cgroup quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Cores, at least 1. A quota is rounded up: one thread would leave half of 1.5 cores idle."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _quota(cgroups, membership))))


def _quota(cgroups: Path, membership: Path) -> float:
    """Smallest quota, in cores, of the process's cgroup (v1 or v2) and its parents."""
    quotas = [math.inf]
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, read = cgroups, _quota_v2
        elif "cpu" in controllers.split(","):
            root, read = cgroups / "cpu", _quota_v1
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be the host's, with only the root mounted.
        quotas += [
            read(parent) for parent in (folder, *folder.parents) if parent.is_relative_to(root)
        ]
    return min(quotas)


def _quota_v2(folder: Path) -> float:
    quota, _, period = "".join(_lines(folder / "cpu.max")[:1]).partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else math.inf


def _quota_v1(folder: Path) -> float:
    quota = "".join(_lines(folder / "cpu.cfs_quota_us")[:1])
    period = "".join(_lines(folder / "cpu.cfs_period_us")[:1])
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
