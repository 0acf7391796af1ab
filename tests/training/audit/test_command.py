"""`python -m training audit` as its users meet it."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.audit.conftest import scene, write
from training.__main__ import cli
from training.audit.checks import CHECKS

QUICK = ["--no-near", "--no-labels"]


def audit(data: Path, out: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["audit", "--data", str(data), "--out", str(out), *QUICK, *options])
    return done.exit_code, done.output


def test_an_audit_leaves_a_page_and_an_object_and_says_what_it_found(pets: Path, tmp_path: Path) -> None:
    shutil.copy(pets / "cats" / "01.png", pets / "dogs" / "copy.png")
    code, output = audit(pets, tmp_path / "out")
    assert code == 0
    assert "25 pictures in 2 classes" in output
    assert "conflict" in output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["checks"]["conflict"]["findings"] == 1
    assert set(found["checks"]) == set(CHECKS)
    (finding,) = found["findings"]
    assert finding["pictures"] == ["cats/01.png", "dogs/copy.png"]
    assert finding["severity"] == "error"
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "cats/01.png" in page


def test_checks_that_were_not_made_are_named_with_the_reason(pets: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["audit", "--data", str(pets), "--out", str(tmp_path / "out"), "--no-near"])
    assert "not checked: wrong-label: 24 pictures, too few to learn from (100 are needed)" in done.output
    assert "not checked: near-duplicate: it was turned off" in done.output


def test_the_page_needs_nothing_else_and_escapes_what_strangers_named(pets: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&'\".png"
    write(pets / "cats" / "x.png", scene(1)).rename(pets / "cats" / evil)
    audit(pets, tmp_path / "out")
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&#39;&#34;.png" in page
    assert "http:" not in page
    assert "https:" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_originals_are_not_touched(pets: Path, tmp_path: Path) -> None:
    (pets / "cats" / "broken.png").write_bytes(b"")
    before = {file: file.read_bytes() for file in pets.rglob("*.png")}
    audit(pets, tmp_path / "out")
    assert {file: file.read_bytes() for file in pets.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("fail_on", "code"), [("", 0), ("leakage", 0), ("leakage,corrupt", 1), ("error", 1), ("warning", 0), ("info", 0)]
)
def test_fail_on_decides_the_exit_code(pets: Path, tmp_path: Path, fail_on: str, code: int) -> None:
    (pets / "cats" / "broken.png").write_bytes(b"")
    assert audit(pets, tmp_path / "out", "--fail-on", fail_on)[0] == code


def test_thresholds_are_set_by_name(pets: Path, tmp_path: Path) -> None:
    code, output = audit(pets, tmp_path / "out", "--threshold", "few=20", "--threshold", "dark=10")
    assert (code, output.count(" few ")) == (0, 1)
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["checks"]["dark"]["threshold"] == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fail-on", "leaks"], "there is no check 'leaks'"),
        (["--threshold", "leakage=1"], "'leakage' has no threshold"),
        (["--threshold", "blurred=much"], "not NAME=NUMBER"),
        (["--threshold", "blurred=-1"], "a number of at least 0"),
    ],
)
def test_what_cannot_be_asked_is_one_line(pets: Path, tmp_path: Path, options: list[str], words: str) -> None:
    code, output = audit(pets, tmp_path / "out", *options)
    assert code == 1
    (line,) = output.splitlines()
    assert words in line


def test_a_place_that_cannot_be_written_is_one_line(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, output = audit(pets, tmp_path / "file" / "out")
    assert code == 1
    assert "--out" in output.splitlines()[-1]
