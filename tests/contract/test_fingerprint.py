"""Whether a folder's files have changed, without reading them."""

import os
from pathlib import Path

import pytest

from app.contract.fingerprint import fingerprint_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "variables" / "data").write_bytes(b"weights")
    return folder


def test_it_is_the_same_while_nothing_changes(folder: Path) -> None:
    assert fingerprint_of(folder) == fingerprint_of(folder)


def test_a_file_that_grows_appears_or_goes_changes_it(folder: Path) -> None:
    seen = {fingerprint_of(folder)}
    with (folder / "variables" / "data").open("ab") as file:
        file.write(b"!")
    seen.add(fingerprint_of(folder))
    (folder / "variables" / "more").touch()
    seen.add(fingerprint_of(folder))
    (folder / "variables" / "data").unlink()
    seen.add(fingerprint_of(folder))
    assert len(seen) == 4


def test_other_content_of_the_same_size_and_age_changes_it(folder: Path) -> None:
    file = folder / "variables" / "data"
    before, times = fingerprint_of(folder), file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint_of(folder) != before


def test_it_says_whether_there_is_a_manifest(folder: Path) -> None:
    found = fingerprint_of(folder)
    assert found is not None
    assert found.has_manifest
    (folder / "manifest.json").rename(folder / "variables" / "manifest.json")
    found = fingerprint_of(folder)
    assert found is not None
    assert not found.has_manifest


def test_links_to_nowhere_and_in_circles_are_no_trouble(folder: Path) -> None:
    (folder / "nowhere").symlink_to(folder / "gone")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    assert fingerprint_of(folder) == fingerprint_of(folder) is not None


def test_what_is_not_there_has_none_and_a_file_has_no_files(tmp_path: Path) -> None:
    assert fingerprint_of(tmp_path / "2") is None
    (tmp_path / "3").touch()
    found = fingerprint_of(tmp_path / "3")
    assert found is not None
    assert found.files == frozenset()
