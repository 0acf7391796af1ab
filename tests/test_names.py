"""Names of tests are short enough to read whole in pytest's output."""

import re
from pathlib import Path

LONGEST = 79


def test_no_name_of_a_test_is_longer_than_a_line(repository: Path) -> None:
    names = (
        name
        for file in (repository / "tests").rglob("test_*.py")
        for name in re.findall(r"\bdef (test_\w+)", file.read_text(encoding="utf-8"))
    )
    assert [name for name in names if len(name) > LONGEST] == []
