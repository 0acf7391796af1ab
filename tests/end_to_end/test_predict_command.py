"""`python -m app predict` as its users meet it, here and with a real service."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from tests.end_to_end.draining import DrainingService

LABELS = {str(digit) for digit in range(10)}


def predict(*arguments: object, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "app", "predict", *map(str, arguments)],
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def url(trained_store: Path) -> Iterator[str]:
    service = DrainingService(trained_store)
    try:
        yield service.url
    finally:
        assert service.stop() == 0


@pytest.fixture
def folder(mnist_pictures: list[tuple[Path, str]], tmp_path: Path) -> Path:
    """Pictures in folders, and what is none of them."""
    for path, label in mnist_pictures[:20]:
        place = tmp_path / "pictures" / label / "deeper"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    (tmp_path / "pictures" / ".hidden.png").write_text("no picture")
    return tmp_path / "pictures"


def test_a_folder_is_classified_with_all_below_it_in_the_order_of_names(url: str, folder: Path) -> None:
    found = lines(predict(folder, "--json", "--url", url))
    assert [line["file"] for line in found] == sorted(str(path) for path in folder.rglob("?-*.png"))
    assert all(set(line["probabilities"]) == LABELS for line in found)


def test_more_pictures_than_a_request_holds_stay_in_their_order(url: str, folder: Path) -> None:
    names = sorted(str(path) for path in folder.rglob("?-*.png")) * 30
    found = lines(predict("--files-from", "-", "--json", "--url", url, stdin="\n".join(names).encode()))
    assert [line["file"] for line in found] == names


def test_a_pattern_is_what_it_fits(url: str, folder: Path) -> None:
    found = lines(predict(f"{folder}/**/1-*.png", "--json", "--url", url))
    assert [line["file"] for line in found] == sorted(str(path) for path in folder.rglob("1-*.png"))


def test_standard_input_is_a_picture(trained_store: Path, data_folder: Path) -> None:
    seven = (data_folder / "7-00000.png").read_bytes()
    (found,) = lines(predict("-", "--json", "--model-store", trained_store, stdin=seven))
    assert (found["file"], found["model"]) == ("-", {"name": "digits", "version": 1})


def test_csv_has_a_row_for_each_picture_and_a_column_for_each_label_asked_for(url: str, folder: Path) -> None:
    done = predict(folder, "--output", "csv", "--top-k", 2, "--url", url)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 20
    assert list(rows[0]) == ["file", "model", "version", "label", "probability", "label_2", "probability_2"]
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)


def test_answers_say_how_far_they_can_be_trusted_if_asked(repository: Path, data_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "chequered.png"
    cv2.imwrite(str(other), np.kron(np.indices((7, 7)).sum(axis=0) % 2, np.full((4, 4), 255)).astype(np.uint8))
    pictures = [str(data_folder / "7-00000.png"), str(other)]
    asked = ["--false-alarms", "0.01", "--min-probability", "0.5", "--set", "0.01"]

    def said(*arguments: str) -> str:
        store = str(repository / "model_store")
        done = CliRunner().invoke(cli, ["predict", *pictures, *asked, *arguments, "--model-store", store])
        assert done.exit_code == 0, done.output
        return done.stdout

    details = ["--details", "familiarity", "--details", "neighbours"]
    seven, chequered = map(json.loads, said("--json", *details).splitlines())
    assert (seven["decision"], chequered["decision"]) == ("label", "unfamiliar")
    assert seven["familiarity"]["overall"] > 0.01 >= chequered["familiarity"]["overall"]
    assert seven["neighbours"][0]["label"] == "7"
    assert seven["set"]["labels"] == ["7"]
    rows = list(csv.DictReader(said("--output", "csv").splitlines()))
    assert [row["decision"] for row in rows] == ["label", "unfamiliar"]
    assert json.loads(rows[0]["set"]) == ["7"]
    header, first, _ = said("--top-k", "1").splitlines()
    assert header.split()[-2:] == ["decision", "set"]
    assert first.split()[-2:] == ["label", "7"]


def test_the_table_has_aligned_columns(url: str, folder: Path) -> None:
    header, *rows = predict(folder, "--url", url).stdout.splitlines()
    column = header.index("label")
    assert len(rows) == 20
    assert {row[column] for row in rows} <= LABELS


def test_what_cannot_be_classified_is_a_line_each_and_exit_1(url: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bad = [folder / "notes.txt", tmp_path / "missing\n.png", tmp_path / "empty", tmp_path / "*.gif"]
    done = predict(*bad, folder, "--json", "--url", url)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 20
    *told, left_out = done.stderr.splitlines()
    assert left_out == "2 files left out: 1 .txt, 1 hidden file"
    assert [line.split(": ")[0] for line in told] == ["error"] * 4
    for line, words in zip(told, ("notes.txt", "No such file", "no file that ends in", "No file matches"), strict=True):
        assert words in line


def test_a_service_with_a_key_is_asked_with_the_one_of_the_environment(trained_store: Path, folder: Path) -> None:
    service = DrainingService(trained_store, api_keys="secret")
    try:
        refused = predict(folder, "--url", service.url)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "This service requires an API key" in refused.stderr
        assert predict(folder, "--url", service.url, IMAGECLASS_API_KEY="secret").returncode == 0
    finally:
        assert service.stop() == 0


def test_a_model_that_is_not_there_is_one_line(url: str, folder: Path) -> None:
    done = predict(folder, "--url", url, "--model", "cats")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "no model 'cats'" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["-", "--files-from", "-"], ["--output", "xml", "a.png"]])
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    assert predict(*arguments).returncode == 2


def test_a_reader_that_has_had_enough_ends_it_quietly(url: str, folder: Path) -> None:
    names = folder / "names"
    names.write_text("\n".join([str(next(folder.rglob("?-*.png")))] * 5000))
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "predict", "--files-from", str(names), "--json", "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_ctrl_c_ends_it_though_its_input_never_does(url: str, folder: Path) -> None:
    name = next(folder.rglob("?-*.png"))
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "predict", "--files-from", "-", "--json", "--url", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["file"] == str(name)  # at once: it waits for no more
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert process.stderr.read() == ""
        process.stdin.close()
    assert process.returncode == 130
