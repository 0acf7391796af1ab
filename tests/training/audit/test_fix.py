"""A cleaned copy holds what is good, says what it left out, and the originals stay as they are."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.training.audit.conftest import scene, write
from training.__main__ import cli
from training.data.sources import open_data


def fix(data: Path, out: Path, *options: str) -> tuple[int, str]:
    arguments = ["audit", "--data", str(data), "--out", str(out.parent / "report"), "--no-labels", "--fix", str(out)]
    done = CliRunner().invoke(cli, [*arguments, *options])
    return done.exit_code, done.output


def ids(data: Path) -> set[str]:
    return {picture.id for picture in open_data(str(data)).pictures}


@pytest.fixture
def messy(pets: Path) -> Path:
    (pets / "cats" / "broken.png").write_bytes(b"")
    shutil.copy(pets / "cats" / "01.png", pets / "cats" / "copy.png")
    shutil.copy(pets / "cats" / "03.png", pets / "dogs" / "conflict.png")
    write(pets / "dogs" / "near.jpg", scene(2))
    return pets


def test_a_folder_is_written_without_what_is_certain_to_be_wrong(messy: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in messy.rglob("*") if file.is_file()}
    code, said = fix(messy, tmp_path / "clean")
    assert code == 0
    assert ids(tmp_path / "clean") == ids(messy) - {
        "cats/broken.png", "cats/copy.png", "cats/03.png", "dogs/conflict.png",
    }  # fmt: skip
    assert "2 conflict, 1 corrupt, 1 duplicate" in said
    with (tmp_path / "clean" / "left-out.csv").open(newline="") as stream:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    assert reasons["cats/copy.png"] == "duplicate: the same picture as cats/01.png"
    assert {file: file.read_bytes() for file in messy.rglob("*") if file.is_file()} == before
    code, said = fix(tmp_path / "clean", tmp_path / "cleaner", "--fail-on", "error,duplicate")
    assert code == 0, said


def test_a_manifest_lists_the_good_originals(messy: Path, tmp_path: Path) -> None:
    assert fix(messy, tmp_path / "clean.csv")[0] == 0
    listed = open_data(str(tmp_path / "clean.csv")).pictures
    assert {picture.content for picture in listed} == {
        file.resolve() for file in messy.rglob("*.*")
        if f"{file.parent.name}/{file.name}" not in
        {"cats/broken.png", "cats/copy.png", "cats/03.png", "dogs/conflict.png"}
    }  # fmt: skip


def test_what_leaks_goes_from_training_and_the_test_keeps_its_pictures(tmp_path: Path) -> None:
    for row in range(40):
        write(tmp_path / "data" / ("train" if row < 30 else "test") / "ab"[row % 2] / f"{row:02}.png", scene(row))
    shutil.copy(tmp_path / "data/test/a/30.png", tmp_path / "data/train/a/copy.png")
    write(tmp_path / "data/train/b/near.jpg", scene(31))
    assert fix(tmp_path / "data", tmp_path / "clean")[0] == 0
    assert ids(tmp_path / "data") - ids(tmp_path / "clean") == {"train/a/copy.png", "train/b/near.jpg"}


def test_groups_in_the_test_go_from_training(tmp_path: Path) -> None:
    for row in range(40):
        split, person = ("train" if row < 30 else "test"), row % 10
        if split == "train" or person < 3:
            write(tmp_path / "data" / split / "ab"[row // 2 % 2] / f"p{person}-{row:02}.png", scene(row))
    assert fix(tmp_path / "data", tmp_path / "clean", "--group-by", "p[0-9]")[0] == 0
    left = ids(tmp_path / "clean")
    assert not [name for name in left if name.startswith("train") and "/p0" in name]
    assert [name for name in left if name.startswith("train") and "/p5" in name]
    assert [name for name in left if name.startswith("test") and "/p0" in name]


def test_arrays_become_a_folder_that_reads_back_the_same(tmp_path: Path) -> None:
    images = np.stack([scene(row) for row in range(12)])
    images[5] = images[3]
    labels = np.array([row % 2 for row in range(12)])
    np.savez(tmp_path / "a.npz", x_train=images[:8], y_train=labels[:8], x_test=images[8:], y_test=labels[8:])
    assert fix(tmp_path / "a.npz", tmp_path / "clean")[0] == 0
    written = open_data(str(tmp_path / "clean")).pictures
    assert {(picture.id, picture.label, picture.split) for picture in written} == {
        (f"{split}/{row % 2}/{row - start:05}.png", str(row % 2), split)
        for split, start, rows in (("train", 0, range(8)), ("test", 8, range(8, 12)))
        for row in rows
        if row != 5
    }
    code, said = fix(tmp_path / "a.npz", tmp_path / "clean.csv")
    assert code == 1
    assert "name a folder instead" in said


def test_nothing_that_is_there_is_overwritten(pets: Path, tmp_path: Path) -> None:
    code, said = fix(pets, pets)
    assert code == 1
    assert "already exists" in said
