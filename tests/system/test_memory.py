"""How much memory a run may take."""

from pathlib import Path

import pytest

from app.system.memory import available_memory, kills_by_memory_limit

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(MEMINFO)
    return file


def group(folder: Path, limit: str) -> Path:
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("3000\n")
    (folder / "memory.stat").write_text("anon 1000\ninactive_file 500\n")
    return folder


def test_memory_is_what_the_system_calls_available(meminfo: Path, tmp_path: Path) -> None:
    assert available_memory(meminfo=meminfo, cgroup=tmp_path / "none") == 20_000_000 * 1024


@pytest.mark.parametrize(("limit", "left"), [("10000", 7500), ("2000", 0), ("max", 20_000_000 * 1024)])
def test_a_containers_limit_counts(meminfo: Path, tmp_path: Path, limit: str, left: int) -> None:
    assert available_memory(meminfo=meminfo, cgroup=group(tmp_path / "group", limit)) == left


def test_a_system_that_does_not_say_gives_half_of_what_is_built_in(tmp_path: Path) -> None:
    half = available_memory(meminfo=tmp_path / "none", cgroup=tmp_path / "none")
    assert 1 << 26 < half < 1 << 45


@pytest.mark.parametrize(
    ("entry", "file"),
    [("0::/service", "service/memory.events"), ("7:memory:/service", "memory/service/memory.oom_control")],
)
def test_kills_by_the_memory_limit_are_those_of_the_own_control_group(tmp_path: Path, entry: str, file: str) -> None:
    membership = tmp_path / "membership"
    membership.write_text(f"{entry}\n")
    assert kills_by_memory_limit(cgroups=tmp_path, membership=membership) == 0
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("oom 3\noom_kill 2\n")
    assert kills_by_memory_limit(cgroups=tmp_path, membership=membership) == 2
