"""Public clients of the Open Inference Protocol, unmodified, against the real service with two workers."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.end_to_end.callers import free_port
from tests.end_to_end.draining import DrainingService

pytestmark = pytest.mark.slow

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def service(trained_store: Path) -> Iterator[DrainingService]:
    service = DrainingService(trained_store, workers=2, grpc_port=free_port(), max_batch_size=16)
    yield service
    assert service.stop() == 0
    assert service.stray == []


@pytest.fixture(scope="module")
def files(mnist_pictures: list[tuple[Path, str]]) -> list[str]:
    return [str(file) for file, _ in mnist_pictures[:20]]


@pytest.fixture(scope="module")
def expected(service: DrainingService, files: list[str]) -> list[list[float]]:
    """What `POST /predict` says."""
    answers = [
        httpx.post(f"{service.url}/predict", content=Path(file).read_bytes(), headers={"content-type": "image/png"})
        for file in files
    ]
    return [list(answer.json()["probabilities"].values()) for answer in answers]


@pytest.fixture(scope="module")
def ask(client_python: Path, repository: Path, files: list[str]) -> Ask:
    """Run a script of tests/clients with a public client, and return what it printed."""

    def run(script: str, *arguments: str) -> Any:
        command = [str(client_python), str(repository / "tests" / "clients" / script), *arguments, "digits", *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def count(statistics: Any, key: str = "") -> int:
    """The JSON of gRPC's messages has long numbers as strings, and leaves out what is 0."""
    return int(statistics.get(key or ("count" if "ns" in statistics else "inference_count"), 0))


def address(service: DrainingService, protocol: str) -> str:
    http = service.url.removeprefix("http://")
    return http if protocol == "http" else f"127.0.0.1:{service.settings['grpc_port']}"


def test_tritonclient_gets_the_outputs_that_it_names(
    client_python: Path, repository: Path, data_folder: Path, tmp_path: Path
) -> None:
    chequered = tmp_path / "chequered.png"
    cv2.imwrite(str(chequered), np.kron(np.indices((7, 7)).sum(axis=0) % 2, np.full((4, 4), 255)).astype(np.uint8))
    pictures = [str(data_folder / "7-00000.png"), str(chequered)]
    service = DrainingService(repository / "model_store", grpc_port=free_port())
    try:
        for protocol in ("http", "grpc"):
            script = str(repository / "tests" / "clients" / "triton_outputs.py")
            command = [str(client_python), script, protocol, address(service, protocol), "mnist", *pictures]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            assert found["decision"] == ["label", "unfamiliar"]
            assert found["familiarity"][0][0] > 0.05 >= found["familiarity"][1][0]
            assert np.argmax(found["probabilities"][0]) == 7
            assert (found["unasked"], found["outputs"]) == (None, ["probabilities"])
    finally:
        assert service.stop() == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_gets_what_predict_says_and_all_that_it_asks(
    service: DrainingService, ask: Ask, expected: list[list[float]], protocol: str
) -> None:
    found = ask("triton.py", protocol, address(service, protocol))
    assert (found["live"], found["ready"], found["model_ready"], found["other_ready"]) == (True, True, True, False)
    only_http = ("to_json", "by_gzip", "by_deflate", "to_gzip", "to_deflate")
    for road in ("by_bytes", "by_columns", "by_version", *(only_http if protocol == "http" else ())):
        np.testing.assert_allclose(found[road], expected, atol=1e-5)
    assert np.sum(found["by_pixels"], axis=1) == pytest.approx([1, 1], abs=1e-5)
    if protocol == "http":
        np.testing.assert_allclose(found["by_json"], found["by_pixels"], atol=1e-6)
    assert found["id"] == "order-42"
    for (first, second), row in zip(found["classified"], expected, strict=True):
        value, index, label = first.split(":")
        assert int(index) == int(label) == int(np.argmax(row))
        assert float(value) == pytest.approx(max(row), abs=1e-5)
        assert float(second.split(":")[0]) <= float(value)
    assert found["concurrent"] == 20
    before, after = (found[when]["model_stats"][0] for when in ("statistics_before", "statistics"))
    # Whichever of the two workers answered: 25 requests of 20 pictures, and one of two.
    assert count(after) - count(before) == 502
    assert count(after["inference_stats"]["success"]) - count(before["inference_stats"]["success"]) == 26
    assert 0 < count(after, "execution_count") - count(before, "execution_count") <= 502
    assert found["server"]["name"] == "imageclass"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(found["server"]["extensions"])
    config = found["config"]["config"] if protocol == "grpc" else found["config"]
    assert (config["max_batch_size"], [int(size) for size in config["input"][0]["dims"]]) == (64, [28, 28, 1])
    index = found["index"]["models"] if protocol == "grpc" else found["index"]
    assert [(each["name"], each["version"], each["state"]) for each in index] == [("digits", "1", "READY")]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_raises_the_services_own_sentences(service: DrainingService, ask: Ask, protocol: str) -> None:
    errors = ask("triton.py", protocol, address(service, protocol))["errors"]
    statuses = {
        "no such model": ("404", "StatusCode.NOT_FOUND"),
        "no such version": ("404", "StatusCode.NOT_FOUND"),
        "no picture": ("415", "StatusCode.INVALID_ARGUMENT"),
        "late": ("504", "StatusCode.DEADLINE_EXCEEDED"),
    }
    assert {what: status for what, (status, _) in errors.items()} == {
        what: of[protocol == "grpc"] for what, of in statuses.items()
    }
    assert "There is no model 'no-such-model' here" in errors["no such model"][1]
    assert "version 1 is" in errors["no such version"][1]
    assert "Picture 1, counted from 0" in errors["no picture"][1]


def test_the_kserve_sdk_gets_what_predict_says(service: DrainingService, ask: Ask, expected: list[list[float]]) -> None:
    found = ask("kserve_sdk.py", service.url, address(service, "grpc"))
    for road in ("rest", "grpc"):
        np.testing.assert_allclose(found[road]["by_bytes"], expected, atol=1e-5)
        np.testing.assert_allclose(found[road]["by_pixels"], found[road]["by_values"], atol=1e-6)
        assert (found[road]["live"], found[road]["ready"], found[road]["model_ready"]) == (True, True, True)
    np.testing.assert_allclose(found["rest"]["to_binary"], expected, atol=1e-5)
    assert found["rest"]["other_ready"] is False
    assert "There is no model 'no-such-model' here" in found["rest"]["error"]
