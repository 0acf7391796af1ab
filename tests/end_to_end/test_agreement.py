"""A running service, measured over HTTP beside its own bundle in process: the two must not drift apart."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import StartService


def evaluated(store: Path, data: Path, *options: str) -> dict[str, object]:
    command = [sys.executable, "-m", "training", "evaluate", "--data", str(data), "--model", "mnist", "--json"]
    done = subprocess.run(
        [*command, "--model-store", str(store), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_a_service_answers_over_http_what_the_bundle_answers_in_process(
    repository: Path, data_folder: Path, tmp_path: Path, start_service: StartService, engine: str
) -> None:
    for picture in data_folder.glob("*-*.png"):
        (tmp_path / "digits" / picture.name.split("-")[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "digits" / picture.name.split("-")[0])
    store = repository / "model_store"
    service = start_service(store, engine=engine, model="mnist")
    here = evaluated(store, tmp_path / "digits")
    there = evaluated(store, tmp_path / "digits", "--url", service.url)
    assert here["accuracy"] == there["accuracy"]
    agreement = there["agreement"]
    assert isinstance(agreement, dict)
    assert (agreement["pictures"], agreement["same_label"]) == (80, 80)
    assert agreement["max_probability_difference"] < 1e-4
