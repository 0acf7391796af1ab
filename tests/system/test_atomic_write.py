"""A file is replaced whole or not at all."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from app.system.atomic_write import atomic_write, remove_unfinished


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "state.json"
    file.write_bytes(b"old")
    return file


def test_the_old_content_stays_until_the_new_is_whole(file: Path) -> None:
    with atomic_write(file) as stream:
        stream.write(b"ne")
        stream.flush()
        assert file.read_bytes() == b"old"
        stream.write(b"w")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_content_and_nothing_else(file: Path, error: BaseException) -> None:
    def fail(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise error

    with pytest.raises(type(error)), atomic_write(file) as stream:
        fail(stream)
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("durable", [True, False])
def test_durable_content_is_on_the_disk_before_the_file_has_its_name(
    file: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.pread(descriptor, 10, 0) + file.read_bytes()))
    with atomic_write(file, durable=durable) as stream:
        stream.write(b"new")
    assert synced == ([b"newold"] if durable else [])


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_file_has_the_permissions_that_are_asked_for(file: Path, mode: int) -> None:
    with atomic_write(file, mode=mode):
        pass
    assert file.stat().st_mode & 0o777 == mode


def test_what_a_killed_process_left_behind_can_be_removed(file: Path) -> None:
    killed = atomic_write(file)
    killed.__enter__()
    beside = file.with_name("other.json")
    beside.touch()
    assert len(list(file.parent.iterdir())) == 3
    remove_unfinished(file)
    assert sorted(file.parent.iterdir()) == [beside, file]
