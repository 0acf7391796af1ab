"""A confirmed decision survives whatever happens to the process, and two reviews do not write one file."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.data.decisions import HEADER, Decision, read_decisions
from training.errors import DataError
from training.review.journal import open_journal

DECISION = Decision("keep", "", "wrong-label", "cats/01.png", "cats", "3:ab", "", "It is so.", "2026-11-26T12:00:00Z")

_WRITES_UNTIL_KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from training.data.decisions import Decision
from training.review.journal import open_journal
DECISION = Decision("keep", "", "wrong-label", "", "cats", "3:ab", "", "It is so.", "2026-11-26T12:00:00Z")
with open_journal(Path(sys.argv[1])) as journal:
    for number in range(10**9):
        journal.append(replace(DECISION, path=str(number)))
        print(number, flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".imageclass" / "decisions.csv"


def test_a_kill_loses_no_decision_that_was_confirmed(file: Path, repository: Path) -> None:
    words = [sys.executable, "-c", _WRITES_UNTIL_KILLED, str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=repository) as writer:
        assert writer.stdout is not None
        confirmed = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        confirmed += [int(line) for line in writer.stdout.readlines()]
    found = [int(each.path) for each in read_decisions(file)]
    assert found == list(range(len(found)))
    assert len(found) >= len(confirmed)
    with open_journal(file) as journal:  # and the lock went with the process
        journal.append(DECISION)
    assert read_decisions(file)[-1] == DECISION


def test_what_was_cut_off_is_removed_before_more_is_written(file: Path) -> None:
    file.parent.mkdir()
    for left, kept in ((b"", 0), (HEADER[:7], 0), (HEADER + DECISION.line() + b"drop,,x", 1)):
        file.write_bytes(left)
        with open_journal(file) as journal:
            assert len(journal.decisions) == kept
            journal.append(DECISION)
        assert file.read_bytes() == HEADER + DECISION.line() * (kept + 1)


def test_a_last_line_without_its_break_is_kept(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(HEADER + DECISION.line().rstrip(b"\n"))
    with open_journal(file) as journal:
        journal.append(DECISION)
    assert read_decisions(file) == [DECISION, DECISION]


def test_a_second_review_is_refused_with_a_sentence(file: Path) -> None:
    with (
        open_journal(file) as journal,
        pytest.raises(DataError, match="Another review of this data is running"),
        open_journal(file),
    ):
        pass
    with open_journal(file) as journal:
        journal.append(DECISION)


def test_a_full_disk_is_said_and_leaves_no_half_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_journal(file) as journal:
        write = os.write

        def half(descriptor: int, data: bytes) -> int:
            if len(data) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data[:-10])

        monkeypatch.setattr("training.review.journal.os.write", half)
        with pytest.raises(DataError, match=r"No space left on device\. Nothing was saved"):
            journal.append(DECISION)
        monkeypatch.undo()
        assert list(journal.decisions) == []
        journal.append(DECISION)
    assert read_decisions(file) == [DECISION]


def test_a_file_that_somebody_replaced_meanwhile_is_not_written_past(file: Path) -> None:
    with open_journal(file) as journal:
        (file.parent / "edited").write_bytes(HEADER)
        (file.parent / "edited").replace(file)
        with pytest.raises(DataError, match="was replaced by another program"):
            journal.append(DECISION)
        file.unlink()
        with pytest.raises(DataError, match="is gone"):
            journal.append(DECISION)


def test_data_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="Review a copy of the data"), open_journal(tmp_path / "file" / "a" / "b"):
        pass
