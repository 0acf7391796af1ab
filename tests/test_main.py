"""The command line as its users meet it: `python -m app bench`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.api.openapi.schemas import Serving


def bench(store: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGECLASS_")}
    environment |= {f"IMAGECLASS_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "app", "bench", "--model-store", str(store), "--seconds", "0.01", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_bench_shows_what_was_chosen_and_why(trained_store: Path) -> None:
    done = bench(trained_store)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("digits version 1", "openvino", "golden check", "set to f32", "batch of 1", "pictures/s"):
        assert words in done.stdout


def test_bench_as_json_is_one_object_under_the_settings_of_the_environment(trained_store: Path) -> None:
    settings = {
        "workers": "2",
        "inference_threads": "1",
        "max_batch_size": "1",
        "inference_place": "thread",
        "inline_decode_pixels": "5",
    }
    done = bench(trained_store, "--model", "digits", "--json", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["model"] == {"name": "digits", "version": 1}
    assert found["workers"] == 2
    serving = Serving.model_validate(found["serving"])
    assert (serving.threads, serving.inference, serving.inline_decode_pixels) == (1, "thread", 5)
    assert list(serving.batch_milliseconds) == ["1"]
    decode = found["decode_microseconds"]
    assert 0 < decode["min"] <= decode["median"] <= decode["max"]
    assert found["batch_size"] == 1
    assert found["pictures_per_second"] > 0


def test_bench_keeps_a_refused_version_out_of_its_output(copy_of_store: Path) -> None:
    shutil.copytree(copy_of_store / "digits" / "1", copy_of_store / "digits" / "2")  # at a place that is not its own
    done = bench(copy_of_store, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["model"]["version"] == 1
    assert "version refused" in done.stderr


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        (["--model", "cats"], {}, ["no model 'cats'", "digits"]),
        (["--model-store", "/no/such/folder"], {}, ["does not exist"]),
        ([], {"max_batch_size": "0"}, ["IMAGECLASS_MAX_BATCH_SIZE is '0'", "1 to 1024"]),
    ],
)
def test_bench_that_cannot_be_is_one_line_and_exit_1(
    trained_store: Path, options: list[str], settings: dict[str, str], words: list[str]
) -> None:
    done = bench(trained_store, *options, **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)


def test_bench_takes_no_time_that_is_none(trained_store: Path) -> None:
    assert bench(trained_store, "--seconds", "0").returncode == 2
