"""The README's own commands, run as they stand there but for the port, the interpreter and the model store."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import StartService
from tests.end_to_end.pages import Page, run


@pytest.fixture
def readme() -> Page:
    return Page("README.md")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_request_gets_the_answer_that_the_readme_shows(
    readme: Page, repository: Path, start_service: StartService
) -> None:
    service = start_service(repository / "model_store", model="mnist")
    (request,) = readme.commands("curl")
    answered = json.loads(run(request, repository, url=service.url))
    (shown,) = re.findall(r"```json\n(.*?)```", readme.text, re.DOTALL)
    promised = json.loads(shown)
    assert list(answered.pop("probabilities").items()) == [
        (label, pytest.approx(value, abs=1e-4)) for label, value in promised.pop("probabilities").items()
    ]
    assert answered == {**promised, "probability": pytest.approx(promised["probability"], abs=1e-4)}


def test_files_are_classified_here_and_by_the_service(
    readme: Page, repository: Path, start_service: StartService
) -> None:
    service = start_service(repository / "model_store", model="mnist")
    for command in readme.commands(".venv/bin/python -m app predict"):
        printed = run(command, repository, url=service.url)
        assert "7-00000.png" in printed


def test_a_folder_of_pictures_becomes_a_model_that_is_served(
    readme: Page, repository: Path, data_folder: Path, tmp_path: Path, start_service: StartService
) -> None:
    for picture in data_folder.glob("*-*.png"):
        label = "cats" if int(picture.name[0]) % 2 else "dogs"
        folder = tmp_path / "my-photos" / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder)
    (fit,) = readme.commands(".venv/bin/python -m training fit")
    store = tmp_path / "model_store"
    fit = fit.replace("--data my-photos", f"--data {tmp_path / 'my-photos'}")
    assert "pets/1" in run(fit, repository, IMAGECLASS_MODEL_STORE=str(store))
    (serve,) = readme.commands("IMAGECLASS_MODEL=")
    assert serve == "IMAGECLASS_MODEL=pets make run"
    assert start_service(store, model="pets").url


def test_the_two_commands_are_make_targets(readme: Page, repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    assert {command.removeprefix("make ") for command in readme.commands("make ")} <= targets
