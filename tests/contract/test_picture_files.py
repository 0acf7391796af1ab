"""Which files of a folder are pictures, and what is said of the others."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.contract.picture_files import Folder, LeftOut, describe_left_out

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
JPEG = cv2.imencode(".jpg", GREY)[1].tobytes()
PNG = cv2.imencode(".png", GREY)[1].tobytes()
JPEG_2000 = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(40)
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'


def look(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names of the pictures below a folder, and those left out with the reason."""
    waiting, pictures, left_out = [Folder.at(str(folder))], [], []
    while waiting:
        level = waiting.pop().look()
        pictures += [os.path.relpath(path, folder) for path in level.pictures]
        left_out += [(os.path.relpath(path, folder), reason) for path, reason in level.left_out]
        waiting += reversed(level.folders)
    return pictures, left_out


@pytest.mark.parametrize("name", ["a.JPG", "a.jfif", "a.jpe", "a.JPEG", "a", "a.png", "a.dat", "a.jpg_original"])
def test_bytes_of_a_picture_are_one_whatever_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(JPEG)
    assert look(tmp_path) == ([name], [])


@pytest.mark.parametrize("content", [b"", JPEG[:20], b"<html>not found</html>", JPEG_2000])
def test_what_is_named_like_a_picture_is_left_to_its_decoder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpeg").write_bytes(content)
    assert look(tmp_path) == (["a.jpeg"], [])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jp2", JPEG_2000, "JPEG 2000"),
        ("a", JPEG_2000, "JPEG 2000"),
        ("a.svg", SVG, "SVG"),
        ("a.mp4", b"\x00\x00\x00\x18ftypisom" + bytes(40), "a video"),
        ("a.nef", b"II*\x00" + bytes(40), "a camera's raw file"),
        ("notes.TXT", b"none yet", ".txt"),
        ("BMW", b"BMW builds cars, and this is a text about them.", "a file of no known format"),
        ("a", b"", "an empty file"),
        ("a.b64", b"/9j/4AAQ", "Base64 text"),
    ],
)
def test_what_is_no_accepted_picture_is_left_out_by_what_it_is(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert look(tmp_path) == ([], [(name, reason)])


def test_what_systems_write_is_no_alarm_but_hidden_files_and_folders_are(tmp_path: Path) -> None:
    for name in (
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._a.jpg",
        ".git/HEAD",
        "@eaDir/a.jpg",
        ".gitkeep",
        "__MACOSX/a",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07 not a picture")
    (tmp_path / ".seven.png").write_bytes(PNG)
    (tmp_path / ".labels").write_text("seven")
    (tmp_path / ".ipynb_checkpoints" / ".deeper").mkdir(parents=True)
    (tmp_path / ".ipynb_checkpoints" / "seven.png").write_bytes(PNG)
    assert look(tmp_path) == (
        [],
        [
            (".ipynb_checkpoints", "a hidden folder"),
            (".labels", "a hidden file"),
            (".seven.png", "a hidden picture"),
        ],
    )


def test_linked_folders_are_followed_and_links_that_lead_nowhere_or_back_are_named(tmp_path: Path) -> None:
    elsewhere, data = tmp_path / "elsewhere", tmp_path / "data"
    elsewhere.mkdir()
    (elsewhere / "a.png").write_bytes(PNG)
    (elsewhere / "up").symlink_to(tmp_path)
    (data / "inner").mkdir(parents=True)
    (data / "linked").symlink_to(elsewhere)
    (data / "file.png").symlink_to(elsewhere / "a.png")
    (data / "gone.png").symlink_to(tmp_path / "gone.png")
    (data / "itself").symlink_to("itself")
    (data / "inner" / "loop").symlink_to(data)
    pictures, left_out = look(data)
    assert pictures == ["file.png", "linked/a.png"]
    assert sorted(left_out) == [
        ("gone.png", "a link that leads nowhere"),
        ("inner/loop", "a link to a folder above it"),
        ("itself", "a link that leads nowhere"),
        ("linked/up", "a link to a folder above it"),
    ]


def test_a_pipe_is_named_and_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert look(tmp_path) == ([], [("pipe", "a pipe, socket or device")])


@pytest.mark.parametrize(
    ("reasons", "sentence"),
    [
        ([], ""),
        (["SVG"], "1 file left out: 1 SVG"),
        (
            ["SVG"] * 3 + ["HEIC"] * 8 + ["a link that leads nowhere"],
            "12 files left out: 8 HEIC, 3 SVG, 1 link that leads nowhere",
        ),
        (
            ["a video", "a video", *["a link that leads nowhere"] * 2, "an empty file"],
            "5 files left out: 2 links that lead nowhere, 2 videos, 1 empty file",
        ),
    ],
)
def test_what_is_left_out_is_counted_by_reason(reasons: list[str], sentence: str) -> None:
    assert describe_left_out(LeftOut("a", reason) for reason in reasons) == sentence
