"""As many cores as this process may use: never more than its affinity or any control group around it allows."""

import os
from pathlib import Path

import pytest

from app.system.cores import available_cores

MANY = {f"core {index}" for index in range(16)}


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: MANY, raising=False)


def cores_in(folder: Path, membership: str, **files: str) -> int:
    """Lay out control groups; `files` are their contents by path, with "__" for "/" and "cpu_" for "cpu."."""
    for name, content in files.items():
        path = folder / "cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "membership").write_text(membership)
    return available_cores(cgroups=folder / "cgroup", membership=folder / "membership")


def test_without_control_groups_it_is_the_affinity(tmp_path: Path) -> None:
    assert available_cores(cgroups=tmp_path, membership=tmp_path / "missing") == 16


def test_without_an_affinity_it_is_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cores(cgroups=tmp_path, membership=tmp_path / "missing") == 3


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("6400000 100000", 16),
        ("max 100000", 16),
        ("max", 16),
        ("", 16),
        ("400000", 16),
        ("200000 0", 16),
        ("two of them", 16),
        ("--2 --1", 16),
        ("- -", 16),
    ],
)
def test_quota_of_version_2_counts_in_whole_cores(tmp_path: Path, quota: str, cores: int) -> None:
    assert cores_in(tmp_path, "0::/\n", cpu_max=quota) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [
        ("300000", "100000", 3),
        ("250000", "100000", 2),
        ("-1", "100000", 16),
        ("0", "100000", 16),
        ("300000", "", 16),
        ("300000", "0", 16),
        ("?", "?", 16),
    ],
)
def test_quota_of_version_1_counts_in_whole_cores(tmp_path: Path, quota: str, period: str, cores: int) -> None:
    membership = "5:memory:/here\n4:cpu,cpuacct:/here\n1:name=systemd:/here\n"
    files = {"cpu__here__cpu_cfs_quota_us": quota, "cpu__here__cpu_cfs_period_us": period}
    assert cores_in(tmp_path, membership, **files) == cores


def test_in_a_container_of_version_1_the_group_appears_as_the_root(tmp_path: Path) -> None:
    files = {"cpu__cpu_cfs_quota_us": "200000", "cpu__cpu_cfs_period_us": "100000"}
    assert cores_in(tmp_path, "4:cpu,cpuacct:/docker/0123456789ab\n", **files) == 2


@pytest.mark.parametrize(
    ("outer", "inner", "cores"),
    [("400000 100000", "max 100000", 4), ("400000 100000", "200000 100000", 2), ("200000 100000", "900000 100000", 2)],
)
def test_the_tightest_of_nested_groups_decides(tmp_path: Path, outer: str, inner: str, cores: int) -> None:
    files = {"a__cpu_max": outer, "a__b__cpu_max": "max 100000", "a__b__c__cpu_max": inner}
    assert cores_in(tmp_path, "0::/a/b/c\n", **files) == cores


def test_groups_of_others_do_not_count(tmp_path: Path) -> None:
    assert cores_in(tmp_path, "0::/mine\n", others__cpu_max="100000 100000") == 16


@pytest.mark.parametrize("membership", ["", "nonsense", "::", "0:cpu\n", "0::/../../elsewhere\n", "9:cpuset:/a\n"])
def test_a_membership_that_makes_no_sense_is_no_quota(tmp_path: Path, membership: str) -> None:
    assert cores_in(tmp_path, membership, a__cpu_max="100000 100000") == 16


def test_bytes_that_are_no_text_are_no_quota(tmp_path: Path) -> None:
    assert cores_in(tmp_path, "0::/\n") == 16
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "cpu.max").write_bytes(b"\xff\xfe")
    assert available_cores(cgroups=tmp_path / "cgroup", membership=tmp_path / "membership") == 16
    (tmp_path / "membership").write_bytes(b"\xff\xfe")
    assert available_cores(cgroups=tmp_path / "cgroup", membership=tmp_path / "membership") == 16
