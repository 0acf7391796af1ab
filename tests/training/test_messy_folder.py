"""One folder as people have them, with everything at once, and what every command says of it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.__main__ import cli as app_cli
from app.contract.bundle import open_bundle
from training.__main__ import cli

JPEG_2000 = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(40)
HEIC_LIKE = b"\x00\x00\x00\x18ftypheic" + bytes(40)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
LEFT_OUT = (
    "9 files left out: 2 .txt, 2 JPEG 2000, 1 SVG, 1 hidden picture, 1 link that leads nowhere, "
    "1 link to a folder above it, 1 picture outside of the class folders"
)
STORE = Path(__file__).parents[2] / "model_store"


def encoded(seed: int, suffix: str = ".jpg") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    return cv2.imencode(suffix, noise)[1].tobytes()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Return a folder of two classes with 14 good pictures each, and whatever else there may be."""
    data, elsewhere = tmp_path / "messy", tmp_path / "elsewhere"
    names = ("a.JPG", "b", "c.jfif", "d.jpe", "e.Jpeg", "deep/er/f.jpg", "IMG_9.AVIF")
    for offset, label in ((0, "cats"), (100, "dogs")):
        for number, name in enumerate(names):
            write(data / label / name, encoded(offset + number, ".avif" if name.endswith("AVIF") else ".jpg"))
            write(elsewhere / label / f"{number}.dat", encoded(offset + 50 + number, ".png"))
        (data / label / "linked").symlink_to(elsewhere / label)
    write(data / "cats" / "IMG_1.jp2", JPEG_2000)
    write(data / "dogs" / "IMG_2.JP2", JPEG_2000)
    write(data / "dogs" / "drawing.svg", SVG)
    write(data / "dogs" / "notes.txt", b"good dogs")
    write(data / "README.txt", b"cats and dogs")
    write(data / "loose.png", encoded(7, ".png"))
    write(data / "cats" / ".hidden.png", encoded(8, ".png"))
    for litter in (".DS_Store", "cats/._a.JPG", "cats/Thumbs.db", "__MACOSX/cats/._a.JPG", ".git/HEAD"):
        write(data / litter, b"\x00\x05\x16\x07 litter")
    (data / "cats" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    (data / "dogs" / "deep" / "loop").symlink_to(data)
    return data


@pytest.fixture
def broken(messy: Path) -> Path:
    """Return the same folder with what nobody can train on."""
    write(messy / "cats" / "cut.png", encoded(9, ".png")[:300])
    write(messy / "dogs" / "empty.jpg", b"")
    write(messy / "dogs" / "IMG_3.HEIC", HEIC_LIKE)
    write(messy / "dogs" / "IMG_4", HEIC_LIKE)
    (messy / "owls").mkdir()
    write(messy / "pugs" / "only.txt", b"later")
    return messy


def test_fit_learns_every_picture_and_counts_the_rest(messy: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli,
        f"fit --preset seed --data {messy} --name m --epochs 1 --size 16 --test 0.2 --model-store {tmp_path / 'store'}",
    )
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines().count(LEFT_OUT) == 1
    path = tmp_path / "store" / "m" / "1"
    manifest = open_bundle(path).manifest
    assert manifest.training["left_out"] == {
        ".txt": 2,
        "JPEG 2000": 2,
        "SVG": 1,
        "a hidden picture": 1,
        "a link that leads nowhere": 1,
        "a link to a folder above it": 1,
        "a picture outside of the class folders": 1,
    }
    counts = manifest.split["counts"]
    assert isinstance(counts, dict)
    assert sum(sum(classes.values()) for classes in counts.values()) == 28  # type: ignore[union-attr,misc,arg-type]
    assert LEFT_OUT in (path / "report.html").read_text(encoding="utf-8")


def test_fit_stops_at_the_first_fault_and_counts_the_others(broken: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, f"fit --data {broken} --name m --model-store {tmp_path / 'store'}")
    assert done.exit_code == 1
    assert done.stderr.strip() == (
        f"error: Class 'owls' of {broken} has no pictures (it holds no files). Add pictures, or remove the folder. "
        "(1 more; `python -m training audit` names all.)"
    )


def test_fit_names_the_bad_pictures_of_all_splits_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "validation", "test"):
        for place, label in enumerate(("cats", "dogs")):
            for number in range(3):
                write(data / split / label / f"{number}.jpg", encoded(len(split) * 100 + place * 10 + number))
        write(data / split / "cats" / "bad.jpg", b"<html>404</html>")
    done = CliRunner().invoke(cli, f"fit --data {data} --name m --model-store {tmp_path / 'store'}")
    assert done.exit_code == 1
    assert "error: 3 of 21 pictures cannot be used: " in done.stderr
    for split in ("train", "validation", "test"):
        assert f"{split}/cats/bad.jpg: This is HTML" in done.stderr


def test_audit_reports_everything_at_once(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    done = CliRunner().invoke(cli, f"audit --data {broken} --out {out} --no-labels --no-cache --fail-on layout,corrupt")
    assert done.exit_code == 1
    with_pug = LEFT_OUT.replace("9 files", "10 files").replace("2 .txt", "3 .txt")
    assert done.stderr.splitlines().count(with_pug) == 1
    assert "error: --fail-on: corrupt, layout." in done.stderr
    found = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    findings: dict[str, list[tuple[list[str], str]]] = {}
    for each in found["findings"]:
        findings.setdefault(each["check"], []).append((each["pictures"], each["sentence"]))
    assert found["census"]["usable"] == 28
    assert {sentence.partition(" of ")[0] for _, sentence in findings["layout"]} == {"Class 'owls'", "Class 'pugs'"}
    assert sorted(pictures for pictures, _ in findings["corrupt"]) == [
        ["cats/cut.png"],
        ["dogs/IMG_3.HEIC"],
        ["dogs/IMG_4"],
        ["dogs/empty.jpg"],
    ]
    left_out = {sentence: sorted(pictures) for pictures, sentence in findings["left-out"]}
    assert left_out == {
        "3 .txt.": ["README.txt", "dogs/notes.txt", "pugs/only.txt"],
        "2 JPEG 2000.": ["cats/IMG_1.jp2", "dogs/IMG_2.JP2"],
        "1 SVG.": ["dogs/drawing.svg"],
        "1 hidden picture.": ["cats/.hidden.png"],
        "1 link that leads nowhere.": ["cats/gone.jpg"],
        "1 link to a folder above it.": ["dogs/deep/loop"],
        "1 picture outside of the class folders.": ["loose.png"],
    }
    assert "dogs/drawing.svg" in (out / "audit.html").read_text(encoding="utf-8")


def test_predict_answers_for_every_picture_and_counts_the_rest(broken: Path) -> None:
    done = CliRunner().invoke(app_cli, ["predict", str(broken), "--json", "--model-store", str(STORE)])
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 28 + 1  # the loose one too: no class is asked for
    *errors, left_out = done.stderr.splitlines()
    assert left_out == (
        "9 files left out: 3 .txt, 2 JPEG 2000, 1 SVG, 1 hidden picture, 1 link that leads nowhere, "
        "1 link to a folder above it"
    )
    assert sorted(line.split(": ")[1] for line in errors) == [
        str(broken / name) for name in ("cats/cut.png", "dogs/IMG_3.HEIC", "dogs/IMG_4", "dogs/empty.jpg")
    ]
