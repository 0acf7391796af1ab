"""Describe the machine and the versions of a measurement."""

import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.system.cores import available_cores
from benchmarks.harness.workload import HERE

_LIBRARIES = ("numpy", "opencv-python-headless", "openvino", "tensorflow", "fastapi", "starlette", "uvicorn", "uvloop")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_PEERS = ("litserve", "bentoml", "mlserver", "ray")


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    bf16: bool
    memory_gb: float
    system: str
    python: str
    wrk: str
    versions: dict[str, str]
    commit: str
    date: str


def this_machine() -> Machine:
    return Machine(
        cpu=_after_colon(Path("/proc/cpuinfo"), "model name"),
        cores=available_cores(),
        bf16=has_bf16(),
        memory_gb=round(int(_after_colon(Path("/proc/meminfo"), "MemTotal").split()[0]) / 1024**2, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        wrk=_first_line("wrk", "--version").partition(" [")[0],
        versions={library: found for library in _LIBRARIES if (found := _version(library))} | _peer_versions(),
        commit=_commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def has_bf16() -> bool:
    """Return whether the CPU computes in bfloat16, which precision=auto would use."""
    return not _BF16_FLAGS.isdisjoint(_after_colon(Path("/proc/cpuinfo"), "flags").split())


def _after_colon(file: Path, key: str) -> str:
    for line in file.read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "0"


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _peer_versions() -> dict[str, str]:
    """Return the versions pinned in the peers' requirements."""
    found = {}
    for file in sorted((HERE / "contestants").glob("*/requirements.txt")):
        for line in file.read_text().splitlines():
            name, _, pinned = line.partition("==")
            if name.partition("[")[0] in _PEERS:
                found[name.partition("[")[0]] = pinned
    return found


def _commit() -> str:
    """Return the commit, and whether files differ from it; "unknown" outside a repository."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return (head + ("+changes" if changed else "")) if head else "unknown"


def _git(*command: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(HERE), *command], capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "unknown"
    return next(iter((done.stdout or done.stderr).splitlines()), "")
