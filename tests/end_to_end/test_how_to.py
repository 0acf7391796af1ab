"""The commands of pages about the service, as they stand there, and what the pages say about their effect."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.contract.store import ModelStore
from tests.conftest import FindProgram
from tests.end_to_end.callers import health, until
from tests.end_to_end.conftest import StartService
from tests.end_to_end.draining import DrainingService
from tests.end_to_end.pages import opened, run, run_program, settings_of
from tests.versions import version_of


@pytest.fixture(scope="module")
def store(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A copy of the bundled models."""
    copy = tmp_path_factory.mktemp("served") / "model_store"
    return ModelStore(Path(shutil.copytree(repository / "model_store", copy)))


@pytest.fixture(scope="module")
def service(store: ModelStore) -> Iterator[DrainingService]:
    """A service of that copy, as `IMAGECLASS_MODEL=mnist make run` starts it."""
    service = DrainingService(store.root, model="mnist")
    yield service
    assert service.stop() == 0


def classify(url: str, picture: Path, **parameters: str) -> str:
    answer = httpx.post(f"{url}/predict", params=parameters, files={"file": picture.read_bytes()}).json()
    return f"{answer['model']['name']} says {answer['label']}"


def test_clients_of_other_servers_get_their_answers(
    service: DrainingService, repository: Path, program: FindProgram
) -> None:
    program("curl")
    with opened("docs/tutorials/from-another-server.md") as page:
        serve, tensorflow_serving, triton = page.commands()
        assert settings_of(serve).items() <= service.settings.items()
        [probabilities] = json.loads(run(tensorflow_serving, repository, url=service.url))["predictions"]
        [output] = json.loads(run(triton, repository, url=service.url))["outputs"]
        label, probability = run_program(page.block("python"), repository, url=service.url).split()
    assert (output["name"], output["shape"]) == ("probabilities", [1, 10])
    for each in (probabilities, output["data"]):
        assert each.index(max(each)) == 7
        assert max(each) == pytest.approx(float(probability), abs=1e-6)
    assert label == "7"


def test_a_version_is_rolled_back_pinned_and_removed_under_a_running_service(
    service: DrainingService, store: ModelStore, repository: Path, tmp_path: Path
) -> None:
    def live() -> list[int]:
        found: Any = health(service.url)[1]
        return [model["version"] for model in found["models"] if model["name"] == "mnist"]

    for version in (2, 3):
        bundle = version_of(store.path("mnist", 1), version, tmp_path)
        store.publish(bundle.path, "mnist", version, held_back=None)
    until(lambda: live() == [3])
    shown = {}
    with opened("docs/how-to/roll-back.md") as page:
        for command, then in zip(page.commands(), (3, 2, 1, 3, 3), strict=True):
            name = command.split()[4]
            shown[name] = run(command, repository, IMAGECLASS_MODEL_STORE=str(store.root))
            until(lambda then=then: live() == [then])  # type: ignore[misc]
    assert {"mnist", "1", "2", "3"} <= set(shown["list"].split())
    assert store.versions("mnist") == [1, 3]


def test_a_version_is_previewed_beside_the_live_one_and_then_served(
    service: DrainingService, store: ModelStore, repository: Path, tmp_path: Path, program: FindProgram
) -> None:
    def versions() -> tuple[int, int | None]:
        [model] = httpx.get(f"{service.url}/models").json()["models"]
        return model["version"], model.get("preview", {}).get("version")

    program("curl")
    store.publish(version_of(store.path("mnist", 1), 2, tmp_path).path, "mnist", 2, held_back="worse")
    with opened("docs/how-to/preview.md") as page:
        begin, pin, end = (
            partial(run, command, repository, IMAGECLASS_MODEL_STORE=str(store.root))
            for command in page.commands(".venv/bin/python -m app models")
        )
        [ask] = page.commands("curl ")
    live, _ = versions()
    begin()
    until(lambda: versions() == (live, 2))
    assert json.loads(run(ask, repository, url=service.url))["model"] == {"name": "mnist", "version": 2}
    end()
    until(lambda: versions() == (live, None))
    begin()
    pin()
    until(lambda: versions() == (2, None))
    store.unpin("mnist")
    until(lambda: versions() == (live, None))
    store.remove("mnist", 2)


@pytest.mark.long
def test_a_second_model_is_served_beside_the_first_without_a_restart(
    service: DrainingService, store: ModelStore, repository: Path, data_folder: Path
) -> None:
    seven = data_folder / "7-00000.png"
    with opened("docs/how-to/several-models.md") as page:
        fit, serve = page.commands()
    assert settings_of(serve).items() <= service.settings.items()
    run(f"{fit} --preset seed --epochs 2 --no-report", repository, IMAGECLASS_MODEL_STORE=str(store.root))
    until(
        lambda: {model["name"] for model in httpx.get(f"{service.url}/models").json()["models"]} == {"mnist", "digits"}
    )
    assert classify(service.url, seven) == "mnist says 7"
    assert classify(service.url, seven, model="digits").startswith("digits says ")
    assert httpx.get(f"{service.url}/v1/models/digits").status_code == 200
    assert httpx.get(f"{service.url}/v2/models/digits/ready").status_code == 200


def test_keys_host_names_and_origins_are_checked(
    start_service: StartService,
    store: ModelStore,
    data_folder: Path,
    repository: Path,
    program: FindProgram,
    tmp_path: Path,
) -> None:
    program("curl")
    with opened("docs/how-to/api-keys.md") as page:
        [ask] = page.commands("curl ")
        keys, from_file, hosts, origins = (settings_of(command) for command in page.commands())
    seven = (data_folder / "7-00000.png").read_bytes()

    service = start_service(store.root, model="mnist", **keys, **origins)
    assert json.loads(run(ask, repository, url=service.url))["label"] == "7"
    with httpx.Client(base_url=service.url, headers={"content-type": "image/png"}) as client:
        assert client.post("/predict", content=seven).status_code == 401
        for key in keys["api_keys"].split(","):
            assert client.post("/predict", headers={"x-api-key": key}, content=seven).status_code == 200
        asked = {"origin": origins["cors_origins"], "access-control-request-method": "POST"}
        allowed = client.options("/predict", headers=asked).headers["access-control-allow-origin"]
    assert allowed == origins["cors_origins"]

    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key\n")
    assert from_file == {"api_keys_file": "/run/secrets/keys"}
    service = start_service(store.root, model="mnist", api_keys_file=file, **hosts)
    with httpx.Client(base_url=service.url, headers={"content-type": "image/png"}) as client:

        def status(host: str, key: str) -> int:
            return client.post("/predict", headers={"host": host, "x-api-key": key}, content=seven).status_code

        assert status("api.example.com", "first-key") == status("images.internal:8000", "first-key") == 200
        assert status("other.example.com", "first-key") == 400
        file.write_text("# ours\nsecond-key\n")
        until(lambda: status("api.example.com", "second-key") == 200)
        assert status("api.example.com", "first-key") == 401
