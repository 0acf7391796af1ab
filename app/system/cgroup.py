"""Read the files of Linux's control groups; on other systems there are none.

They are described in Linux's Documentation/admin-guide/cgroup-v2.rst, and for version 1 in sched-bwc.rst.
"""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups_of_process(controller: str, *, cgroups: Path, membership: Path) -> list[Path]:
    """Return the folders of this process's control group and of all groups around it, of version 2 and of a
    `controller` of version 1.

    In a container the group usually appears as the root of its file system.
    """
    found: list[Path] = []
    for line in _text(membership).splitlines():
        entry = line.split(":", 2)
        if len(entry) != 3:
            continue
        _, controllers, group = entry
        folder = cgroups if not controllers else cgroups / controller if controller in controllers.split(",") else None
        if folder is not None:
            here = folder / group.lstrip("/")
            for ancestor in (here, *here.parents):
                found.append(ancestor)
                if ancestor == folder:
                    break
    return found


def numbers(file: Path, count: int = 1) -> list[int | None]:
    """Return the first numbers in a file; None for each that is missing or, like "max", no number."""
    found = [int(word) if word.removeprefix("-").isdecimal() else None for word in _text(file).split()[:count]]
    return found + [None] * (count - len(found))


def statistics(file: Path) -> dict[str, str]:
    """Return the values in a file of lines "name value"; empty if it cannot be read."""
    lines = (line.split() for line in _text(file).splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
