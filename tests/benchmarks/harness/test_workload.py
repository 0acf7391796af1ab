from pathlib import Path

import pytest

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.workload import pictures_of_folder


def test_the_pictures_of_a_folder_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert pictures_of_folder(tmp_path) == [b"a.JPG", b"b.png"]


def test_a_folder_of_classes_gives_pictures_from_all_over_it(tmp_path: Path) -> None:
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for index in range(80):
            (tmp_path / label / f"{index:02}.jpg").write_bytes(label.encode())
    found = pictures_of_folder(tmp_path)
    assert len(found) == 64
    assert set(found) == {b"cats", b"dogs"}


def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no"):
        pictures_of_folder(tmp_path)
