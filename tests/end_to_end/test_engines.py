"""A service runs on one engine, and never imports another."""

from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import StartService

WITHOUT_TENSORFLOW = "tests.end_to_end.without_tensorflow"


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_the_service_answers_a_picture_where_tensorflow_cannot_be_imported(
    start_service: StartService, repository: Path, data_folder: Path, engine: str
) -> None:
    service = start_service(repository / "model_store", module=WITHOUT_TENSORFLOW, engine=engine)
    with httpx.Client(base_url=service.url) as client:
        answer = client.post("/predict", files={"file": (data_folder / "7-00000.png").read_bytes()}).json()
        health = client.get("/health").json()
    assert answer["label"] == "7"
    assert health["models"][0]["engine"] == "openvino"
    assert service.stop() == 0


def test_the_service_on_tensorflow_says_that_it_is_not_installed(start_service: StartService, repository: Path) -> None:
    service = start_service(repository / "model_store", wait=False, module=WITHOUT_TENSORFLOW, engine="tensorflow")
    assert service.wait() == 1
    assert "TensorFlow is not installed." in str(service.log)
