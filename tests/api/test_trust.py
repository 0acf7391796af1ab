"""What answers say of how far they can be trusted: familiarity, neighbours and sets of labels."""

import base64
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from app.api.openapi.schemas import BatchAnswer, PredictionAnswer
from app.api.protocols.open_inference.schemas import InferAnswer
from app.contract.bundle import open_bundle
from app.contract.preprocessing import preprocess
from app.contract.trust import TRUST, Trust, directions
from app.engines.engine import GivesOutputs
from app.engines.loading import load_model
from app.errors import BundleTampered
from app.main import load_from
from app.settings import Settings
from tests.api.conftest import OpenClient, running
from tests.api.test_predict import PNG
from training.bundling.familiar import project


async def ask(client: httpx.AsyncClient, picture: bytes, **params: Any) -> dict[str, Any]:
    response = await client.post("/predict", content=picture, headers=PNG, params=params)
    assert response.status_code == 200, response.text
    PredictionAnswer.model_validate(response.json())
    answer: dict[str, Any] = response.json()
    return answer


def assert_refused(response: httpx.Response, said: str = "") -> None:
    assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    assert said in response.json()["error"]


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.fixture(scope="module")
def trusted_store(
    trained_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mnist_pictures: list[tuple[Path, str]],
    sign: Callable[[Path], None],
) -> Path:
    """The bundle digits/1 with what 80 pictures of MNIST say of familiar ones; they are references, too."""
    store = Path(shutil.copytree(trained_store, tmp_path_factory.mktemp("trusted") / "model_store"))
    path = store / "digits" / "1"
    loaded = load_model(path, engine="openvino")
    manifest, engine = loaded.bundle.manifest, loaded.engine
    assert isinstance(engine, GivesOutputs)
    images = [preprocess(file.read_bytes(), manifest.preprocessing) for file, _ in mnist_pictures]
    targets = np.array([manifest.labels.index(label) for _, label in mnist_pictures])
    outputs = engine.outputs(np.stack(images))
    engine.close()
    rows = np.column_stack([outputs["features"], np.ones(len(targets), np.float32)])
    layer = np.linalg.lstsq(rows, np.log(outputs["probabilities"]), rcond=None)[0].astype(np.float32)
    projection, centres = project(outputs["features"], targets, classes=10)
    trust = Trust.calibrated(
        outputs["features"],
        outputs["probabilities"],
        targets,
        projection=projection,
        centres=centres,
        kernel=layer[:-1],
        bias=layer[-1],
        references=directions(outputs["features"], projection, centres),
        reference_labels=targets,
        reference_ids=np.array([file.name for file, _ in mnist_pictures]),
    )
    names = [file.name.encode() for file, _ in mnist_pictures]
    trust = replace(
        trust,
        thumbnails=np.frombuffer(b"".join(names), np.uint8),
        thumbnail_ends=np.cumsum([len(name) for name in names]),
    )
    (path / TRUST).write_bytes(trust.to_npz())
    sign(path)
    return store


@pytest.fixture
async def open_client(trusted_store: Path) -> AsyncIterator[OpenClient]:
    async with AsyncExitStack() as stack:

        async def start(**given: Any) -> httpx.AsyncClient:
            settings = Settings(**{"model_store": trusted_store, "engine": "openvino", "reload_interval_s": 0, **given})
            return await stack.enter_async_context(running(settings, load_from(settings)))

        yield start


@pytest.fixture
async def client(open_client: OpenClient) -> httpx.AsyncClient:
    return await open_client()


@pytest.fixture
def copy_of_store(trusted_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trusted_store, tmp_path / "model_store"))


@pytest.fixture(scope="session")
def chequered() -> bytes:
    return cv2.imencode(".png", np.kron(np.indices((7, 7)).sum(axis=0) % 2, np.ones((4, 4))).astype(np.uint8) * 255)[
        1
    ].tobytes()


async def test_a_picture_of_another_kind_is_unfamiliar(
    client: httpx.AsyncClient, seven: bytes, chequered: bytes
) -> None:
    digit = await ask(client, seven, details="familiarity", false_alarms=0.05)
    other = await ask(client, chequered, details="familiarity", false_alarms=0.05)
    assert digit["unfamiliar"] is False
    assert digit["decision"] == "label"
    assert other["unfamiliar"] is True
    assert other["decision"] == "unfamiliar"
    assert other["familiarity"]["overall"] < digit["familiarity"]["overall"]


async def test_nothing_of_it_is_there_unasked(client: httpx.AsyncClient, seven: bytes) -> None:
    plain = await ask(client, seven)
    assert plain.keys() == {"label", "probability", "probabilities", "model"}
    full = await ask(client, seven, details=["familiarity", "neighbours"], set=0.1, false_alarms=0.1)
    assert {name: full[name] for name in plain if name != "probabilities"}.keys() < full.keys()
    assert full["label"] == plain["label"]
    assert full["probability"] == pytest.approx(plain["probability"], abs=1e-4)


async def test_neighbours_are_training_pictures_of_the_label(client: httpx.AsyncClient, seven: bytes) -> None:
    answer = await ask(client, seven, details="neighbours")
    found = answer["neighbours"]
    assert len(found) == 3
    assert [near["similarity"] for near in found] == sorted((near["similarity"] for near in found), reverse=True)
    assert found[0]["label"] == answer["label"]
    assert not any(near["id"].startswith("/") for near in found)
    thumbnail = base64.b64decode(found[0]["thumbnail"])
    assert thumbnail.decode() == found[0]["id"]


@pytest.mark.parametrize("method", ["lac", "aps"])
async def test_a_set_names_its_calibration(
    client: httpx.AsyncClient, trusted_store: Path, seven: bytes, method: str
) -> None:
    bundle = open_bundle(trusted_store / "digits" / "1")
    for query in ({}, {"top_k": 1}):
        found = (await ask(client, seven, set=0.05, set_method=method, **query))["set"]
        assert found["labels"][0] == "7"
        assert found["error_rate"] == 0.05
        assert found["method"] == method
        assert found["held_out"] == 80
        assert found["calibration"] == bundle.manifest.files[TRUST]


@pytest.mark.parametrize("query", [{"set": 0.0001}, {"false_alarms": 0.0001}])
async def test_a_rate_that_the_held_out_pictures_cannot_tell_is_refused(
    client: httpx.AsyncClient, seven: bytes, query: dict[str, float]
) -> None:
    response = await client.post("/predict", content=seven, headers=PNG, params=query)
    assert_refused(response, "held-out pictures")


@pytest.mark.parametrize("query", [{"set": 1}, {"set": 0}, {"false_alarms": 0.6}, {"details": "age"}])
async def test_other_wishes_are_refused(client: httpx.AsyncClient, seven: bytes, query: dict[str, Any]) -> None:
    assert_refused(await client.post("/predict", content=seven, headers=PNG, params=query))


async def test_by_the_setting_every_answer_says_it_and_the_request_goes_before(
    open_client: OpenClient, seven: bytes, chequered: bytes
) -> None:
    client = await open_client(false_alarms=0.05, min_probability=1.0)
    files = [("files", ("seven.png", seven)), ("files", ("other.png", chequered)), ("files", ("bad.png", b"no"))]
    response = await client.post("/predict/batch", files=files)
    BatchAnswer.model_validate(response.json())
    first, second, third = response.json()["predictions"]
    assert (first["decision"], first["unfamiliar"]) == ("unsure", False)
    assert (second["decision"], second["unfamiliar"]) == ("unfamiliar", True)
    assert "code" in third
    assert (await ask(client, chequered))["unfamiliar"] is True
    assert (await ask(client, seven, false_alarms=0.5, details="familiarity"))["unfamiliar"] in {True, False}


async def test_a_setting_too_low_for_the_model_leaves_answers_as_they_are(
    open_client: OpenClient, seven: bytes
) -> None:
    client = await open_client(false_alarms=0.0001)
    assert "unfamiliar" not in await ask(client, seven)


async def test_the_bundle_may_ask_for_it(open_client: OpenClient, copy_of_store: Path, chequered: bytes) -> None:
    path = copy_of_store / "digits" / "1" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "false_alarms": 0.05}), encoding="utf-8")
    client = await open_client(model_store=copy_of_store)
    assert (await ask(client, chequered))["decision"] == "unfamiliar"


async def test_a_bundle_without_it_says_so_if_asked(
    open_client: OpenClient, copy_of_store: Path, seven: bytes, sign: Callable[[Path], None]
) -> None:
    path = copy_of_store / "digits" / "1"
    (path / TRUST).unlink()
    sign(path)
    client = await open_client(model_store=copy_of_store, false_alarms=0.05)
    assert "unfamiliar" not in await ask(client, seven)
    response = await client.post("/predict", content=seven, headers=PNG, params={"details": "familiarity"})
    assert_refused(response, "Train the model again")


def infer(seven: bytes, *names: str, **parameters: Any) -> dict[str, Any]:
    data = [base64.b64encode(seven).decode()]
    sent = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    return {"inputs": [sent], "outputs": [{"name": name} for name in names], "parameters": parameters}


async def test_the_open_inference_protocol_gives_them_as_outputs_of_their_own(
    client: httpx.AsyncClient, seven: bytes, chequered: bytes
) -> None:
    path = "/v2/models/digits/infer"
    for picture, decision in ((seven, "label"), (chequered, "unfamiliar")):
        said = await ask(client, picture, details="familiarity", false_alarms=0.05)
        body = infer(picture, "familiarity", "probabilities", "decision", false_alarms=0.05)
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
        InferAnswer.model_validate(response.json())
        found = {each["name"]: each for each in response.json()["outputs"]}
        assert list(found) == ["familiarity", "probabilities", "decision"]
        assert found["decision"] == {"name": "decision", "datatype": "BYTES", "shape": [1], "data": [decision]}
        assert found["familiarity"]["shape"] == [1, 3]
        assert found["familiarity"]["data"] == pytest.approx(list(said["familiarity"].values()), abs=0.02)
        assert found["probabilities"]["shape"] == [1, 10]
    (plain,) = (await client.post(path, json=infer(seven))).json()["outputs"]
    assert plain["name"] == "probabilities"
    metadata = (await client.get("/v2/models/digits")).json()
    assert [each["name"] for each in metadata["outputs"]] == ["probabilities"]


@pytest.mark.parametrize(
    ("names", "parameters", "said"),
    [
        (["decision"], {}, "Send min_probability or false_alarms as a parameter"),
        (["decision"], {"false_alarms": 7}, "send a number between 0 and 1"),
        (["decision"], {"false_alarms": 0.0001}, "held-out pictures"),
        (["familiarity", "familiarity"], {}, "the outputs 'probabilities', 'familiarity', 'decision'; the request"),
        (["features"], {}, "asks for: 'features'"),
    ],
)
async def test_outputs_that_cannot_be_had_are_refused(
    client: httpx.AsyncClient, seven: bytes, names: list[str], parameters: dict[str, Any], said: str
) -> None:
    assert_refused(await client.post("/v2/models/digits/infer", json=infer(seven, *names, **parameters)), said)


def test_a_damaged_file_is_named(copy_of_store: Path, sign: Callable[[Path], None]) -> None:
    path = copy_of_store / "digits" / "1"
    (path / TRUST).write_bytes(b"spoiled")
    sign(path)
    with pytest.raises(BundleTampered, match=r"trust\.npz is unusable"):
        _ = open_bundle(path).trust
