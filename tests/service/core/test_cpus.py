from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.core import cpus

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lay_out(root: Path, membership: str, files: dict[str, str]) -> int:
    """The cores counted in a pretended /proc/self/cgroup and /sys/fs/cgroup."""
    member = root / "self-cgroup"
    member.write_text(membership)
    for name, content in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return cpus.available(root / "cgroup", member)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "100000 100000\n"}, 1),
        ("0::/not/mounted\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "3:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "3:cpu,cpuacct:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("", {}, None),
    ],
)
def test_quota(tmp_path: Path, membership: str, files: dict[str, str], quota: int | None) -> None:
    assert lay_out(tmp_path, membership, files) == min(CORES, quota or CORES)


def test_affinity() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this platform")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpus.available() == 1
    finally:
        os.sched_setaffinity(0, allowed)
