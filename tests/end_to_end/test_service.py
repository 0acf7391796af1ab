"""The service as its users meet it: a real process, real sockets, real signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from app.system.cores import available_cores
from tests.end_to_end.conftest import StartService

PNG = {"content-type": "image/png"}


@pytest.fixture
def seven(data_folder: Path) -> Path:
    return data_folder / "7-00000.png"


@pytest.mark.parametrize("workers", [1, 2])
def test_it_answers_and_stops_cleanly(
    start_service: StartService, trained_store: Path, seven: Path, workers: int
) -> None:
    service = start_service(trained_store, workers=workers)
    with httpx.Client(base_url=service.url) as client:
        answer = client.post("/predict", files={"file": seven.read_bytes()})
        assert answer.status_code == 200
        assert answer.json()["model"] == {"name": "digits", "version": 1}
        assert client.get("/health").json()["status"] == "ok"
        assert "server" not in answer.headers
    assert service.stop() == 0


def test_without_a_number_there_is_a_worker_for_each_core(start_service: StartService, trained_store: Path) -> None:
    service = start_service(trained_store, wait=False, workers=0)
    expected = min(available_cores(), 8)
    service.wait_until_ready(expected)
    assert next(line["workers"] for line in service.log if line["event"] == "starting") == expected
    assert service.stop() == 0


def test_ctrl_c_is_a_clean_stop_too(start_service: StartService, trained_store: Path) -> None:
    assert start_service(trained_store).stop(signal.SIGINT) == 0


def test_requests_in_flight_at_sigterm_are_answered(start_service: StartService, trained_store: Path) -> None:
    service = start_service(trained_store)
    large = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (3000, 3000), np.uint8))[1].tobytes()
    statuses: list[int] = []
    sent = threading.Barrier(5)

    def body() -> object:
        """Send all but the last byte, wait until the others have come as far, and send the rest after SIGTERM."""
        yield large[:-1]
        sent.wait(timeout=60)
        terminated.wait(timeout=60)
        yield large[-1:]

    def call() -> None:
        headers = {**PNG, "content-length": str(len(large))}
        statuses.append(httpx.post(f"{service.url}/predict", content=body(), headers=headers, timeout=60).status_code)  # type: ignore[arg-type]

    terminated = threading.Event()
    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    sent.wait(timeout=60)
    service.process.send_signal(signal.SIGTERM)
    terminated.set()
    for caller in callers:
        caller.join(timeout=60)
    assert service.wait() == 0
    assert statuses == [200] * 4


@pytest.mark.parametrize("setting", ["port", "grpc_port"])
def test_a_port_in_use_is_one_line_and_exit_1(start_service: StartService, trained_store: Path, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = start_service(trained_store, wait=False, **{setting: taken.getsockname()[1]})
        assert service.wait() == 1
    (line,) = service.log
    assert "in use" in line["reason"]
    assert f"IMAGECLASS_{setting.upper()}" in line["reason"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tampered_bundle_is_refused_with_the_reason_and_exit_1(
    start_service: StartService, copy_of_store: Path, workers: int
) -> None:
    with (copy_of_store / "digits" / "1" / "saved_model.pb").open("ab") as file:
        file.write(b"!")
    service = start_service(copy_of_store, wait=False, workers=workers)
    assert service.wait() == 1
    (reason,) = [line["reason"] for line in service.log if line["event"] == "cannot start"]
    assert "saved_model.pb is not the file that was exported" in reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "cats"}, ["no model 'cats'", "digits"]),
        ({"model": "cats", "workers": 1}, ["no model 'cats'", "digits"]),
        ({"model_store": "/no/such/folder"}, ["does not exist", "IMAGECLASS_MODEL_STORE"]),
        ({"model_store": __file__}, ["cannot be read", "IMAGECLASS_MODEL_STORE"]),
        ({"host": "no.such.host.invalid"}, ["no.such.host.invalid", "IMAGECLASS_HOST"]),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_1(
    start_service: StartService, trained_store: Path, settings: dict[str, Any], words: list[str]
) -> None:
    service = start_service(trained_store, wait=False, **{"workers": 2, **settings})
    assert service.wait() == 1
    (line,) = [line for line in service.log if line["level"] == "error"]
    assert line["event"] == "cannot start"
    assert all(word in line["reason"] for word in words)


def test_an_empty_store_says_how_to_train(start_service: StartService, tmp_path: Path) -> None:
    service = start_service(tmp_path, wait=False)
    assert service.wait() == 1
    assert "python -m training fit" in service.log[-1]["reason"]


def test_a_bad_setting_is_named_and_exit_1() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        env={**os.environ, "IMAGECLASS_WORKERS": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: IMAGECLASS_WORKERS is '-1'; allowed: 0 to 256.\n"


def test_several_models_are_served_and_the_default_is_a_setting(
    start_service: StartService, trained_store: Path, repository: Path, tmp_path: Path, seven: Path
) -> None:
    shutil.copytree(trained_store, tmp_path, dirs_exist_ok=True)
    shutil.copytree(repository / "model_store" / "mnist", tmp_path / "mnist")
    both = start_service(tmp_path)
    data = seven.read_bytes()
    with httpx.Client(base_url=both.url) as client:
        unnamed = client.post("/predict", content=data, headers=PNG)
        assert (unnamed.status_code, unnamed.json()["code"]) == (400, "model_not_named")
        several = "Several models are served: digits, mnist."
        assert unnamed.json()["error"] == f"{several} Name one with ?model=, or set IMAGECLASS_MODEL."
        for asked in (["--url", both.url], ["--model-store", str(tmp_path)]):
            command = [sys.executable, "-m", "app", "predict", str(seven), *asked]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert done.stderr == f"error: {several} Name one with --model, or set IMAGECLASS_MODEL.\n"
        for name in ("digits", "mnist"):
            named = client.post(f"/predict?model={name}", content=data, headers=PNG)
            assert named.json()["model"]["name"] == name
    assert both.stop() == 0
    with_default = start_service(tmp_path, model="mnist")
    answer = httpx.post(f"{with_default.url}/predict", content=data, headers=PNG).json()
    assert (answer["model"]["name"], answer["label"]) == ("mnist", "7")


def test_the_predict_command_prints_what_the_service_answers(
    start_service: StartService, trained_store: Path, mnist_pictures: list[tuple[Path, str]]
) -> None:
    service = start_service(trained_store)
    files = [str(path) for path, _ in mnist_pictures[:5]]

    def lines(*options: str) -> list[dict[str, object]]:
        command = [sys.executable, "-m", "app", "predict", *files, "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    here = lines("--model-store", str(trained_store))
    there = lines("--url", service.url)
    for mine, theirs in zip(here, there, strict=True):
        assert mine.pop("probabilities") == pytest.approx(theirs.pop("probabilities"), abs=1e-5)
        assert mine.pop("probability") == pytest.approx(theirs.pop("probability"), abs=1e-5)
    assert here == there
    assert [line["file"] for line in here] == files


def test_the_predict_command_answers_the_good_files_and_names_the_bad_ones(
    trained_store: Path, seven: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    files = [str(seven), str(tmp_path / "notes.txt"), str(tmp_path / "missing.png")]
    done = subprocess.run(
        [sys.executable, "-m", "app", "predict", *files, "--model-store", str(trained_store)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "7-00000.png" in done.stdout
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["error", "error"]
    assert "Traceback" not in done.stderr


def test_a_service_that_is_not_there_is_one_line(seven: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "predict", str(seven), "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Is the service running there?" in done.stderr
    assert "Traceback" not in done.stderr


def test_serving_on_openvino_needs_no_tensorflow(start_service: StartService, trained_store: Path) -> None:
    service = start_service(trained_store)
    maps = Path(f"/proc/{service.workers[0]}/maps").read_text()
    assert "openvino" in maps
    assert "tensorflow/libtensorflow" not in maps
