"""Models are loaded and unloaded on request, where the settings allow it, and for all workers that follow the store."""

import asyncio
import json
import shutil
from pathlib import Path

import grpc
import httpx
import pytest

from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.api.protocols.open_inference.rpc import SERVICE
from app.errors import InvalidSetting
from app.main import create_app, load_from
from app.settings import Settings
from tests.api.conftest import OpenClient
from tests.api.open_inference.test_rpc import assert_refused, serving
from tests.api.test_predict import assert_error
from tests.conftest import Load

LOAD, UNLOAD = "/v2/repository/models/{}/load", "/v2/repository/models/{}/unload"
FOLLOW = {"model_control": True, "reload_interval_s": 0.01}


@pytest.fixture
def store(copy_of_store: Path) -> Path:
    """A store of two models, digits and more."""
    add(copy_of_store, "more", 1)
    return copy_of_store


def add(store: Path, name: str, version: int) -> Path:
    folder = store / name / str(version)
    shutil.copytree(store / "digits" / "1", folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": name, "version": version}))
    return folder


async def states(client: httpx.AsyncClient) -> dict[str, str]:
    index = (await client.post("/v2/repository/index")).json()
    return {f"{each['name']} {each['version']}": each["reason"] or each["state"] for each in index}


async def test_a_model_is_unloaded_and_loaded_again(store: Path, open_client: OpenClient) -> None:
    client = await open_client(model_store=store, **FOLLOW)
    other = await open_client(model_store=store, reload_interval_s=0)  # a worker that has not looked yet
    assert (await client.post(UNLOAD.format("more"))).json() == {}
    assert await states(client) == {"digits 1": "READY", "more 1": "unloaded"}
    assert_error(await client.get("/v2/models/more"), 404, "model_not_found")
    assert (await other.get("/v2/models/more")).status_code == 200
    again = await open_client(model_store=store, **FOLLOW)
    assert_error(await again.get("/v2/models/more"), 404, "model_not_found")
    assert (await client.post(UNLOAD.format("more"), content=b'{"parameters": {}}')).status_code == 200
    assert (await client.post(LOAD.format("more"))).json() == {}
    assert await states(client) == {"digits 1": "READY", "more 1": "READY"}


async def test_load_answers_when_the_newest_version_is_live(store: Path, open_client: OpenClient) -> None:
    client = await open_client(model_store=store, **FOLLOW)
    add(store, "more", 2)
    assert (await client.post(LOAD.format("more"))).status_code == 200
    assert (await client.get("/v2/models/more")).json()["versions"] == ["2"]
    (add(store, "more", 3) / "saved_model.pb").write_bytes(b"not this")
    response = await client.post(LOAD.format("more"))
    assert_error(response, 400, "model_control_refused")
    assert "Version 3 of 'more' is rejected: bundle_tampered" in response.json()["error"]
    assert (await client.get("/v2/models/more")).json()["versions"] == ["2"]
    assert str(store) not in response.text


async def test_load_passes_over_a_version_that_is_held_back_and_the_index_names_it(
    store: Path, open_client: OpenClient
) -> None:
    client = await open_client(model_store=store, **FOLLOW)
    (store / "more" / "2.held").touch()
    add(store, "more", 2)
    assert (await client.post(LOAD.format("more"))).status_code == 200
    assert await states(client) == {"digits 1": "READY", "more 1": "READY", "more 2": "held back"}
    (store / "more" / "1.held").touch()
    response = await client.post(LOAD.format("more"))
    assert_error(response, 400, "model_control_refused")
    assert "Every version of 'more' is held back" in response.json()["error"]


async def test_what_requests_need_stays(store: Path, open_client: OpenClient) -> None:
    client = await open_client(model_store=store, model="digits", **FOLLOW)
    assert_error(await client.post(UNLOAD.format("digits")), 400, "model_control_refused")
    assert (await client.post(UNLOAD.format("more"))).status_code == 200
    (store / "digits" / "unloaded").touch()
    client = await open_client(model_store=store, **FOLLOW)  # both are marked, and one by hand
    assert "READY" in (await states(client)).values()
    assert (await client.get("/v2/health/ready")).status_code == 200


async def test_of_two_requests_that_would_leave_no_model_one_is_rejected_without_a_mark(
    store: Path, open_client: OpenClient
) -> None:
    client = await open_client(model_store=store, **FOLLOW)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(client.post(UNLOAD.format(name)) for name in ("digits", "more")))
    refused, unloaded = sorted(answers, key=lambda answer: answer.status_code, reverse=True)
    assert_error(refused, 400, "model_control_refused")
    assert unloaded.status_code == 200
    assert sorted((await states(client)).values()) == ["READY", "unloaded"]
    assert sum((store / name / "unloaded").exists() for name in ("digits", "more")) == 1


async def test_a_model_that_is_not_there_can_be_neither_loaded_nor_unloaded(
    store: Path, open_client: OpenClient
) -> None:
    client = await open_client(model_store=store, **FOLLOW)
    for path in (LOAD, UNLOAD):
        for name in ("cats", "..", "a%2Fb"):
            assert (await client.post(path.format(name))).status_code == 404
    assert_error(await client.post(LOAD.format("cats")), 404, "model_not_found")


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"parameters": 1}', b'{"parameters": {"config": "{}"}}', b'{"parameters": {"file:1": "x"}}']
)
async def test_a_model_of_another_making_is_not_taken(store: Path, open_client: OpenClient, body: bytes) -> None:
    client = await open_client(model_store=store, **FOLLOW)
    assert_error(await client.post(LOAD.format("more"), content=body), 400, "malformed_request")


async def test_it_is_off_unless_it_is_set(store: Path, open_client: OpenClient) -> None:
    client = await open_client(model_store=store)
    assert_error(await client.post(LOAD.format("more")), 403, "model_control_off")
    assert_error(await client.post(UNLOAD.format("more")), 403, "model_control_off")
    assert not (store / "more" / "unloaded").exists()
    settings = Settings(model_store=store, engine="openvino", model_control=True, reload_interval_s=0)
    with pytest.raises(InvalidSetting, match="IMAGECLASS_RELOAD_INTERVAL_S above 0"):
        create_app(settings, load_from(settings))


async def test_a_store_that_cannot_be_written_says_so(
    store: Path, open_client: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await open_client(model_store=store, **FOLLOW)

    def touch(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", touch)
    response = await client.post(UNLOAD.format("more"))
    assert_error(response, 400, "model_control_refused")
    assert "may not write to its model store" in response.json()["error"]


async def test_grpc_does_the_same(load: Load, store: Path) -> None:
    async with serving(load, store, **FOLLOW) as running:
        leave = running.channel.unary_unary(f"/{SERVICE}/RepositoryModelUnload")
        come = running.channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")
        await leave(pb.RepositoryModelUnloadRequest(model_name="more").SerializeToString())
        assert await states(running.http) == {"digits 1": "READY", "more 1": "unloaded"}
        await come(pb.RepositoryModelLoadRequest(model_name="more").SerializeToString())
        assert await states(running.http) == {"digits 1": "READY", "more 1": "READY"}
        await assert_refused(
            come(pb.RepositoryModelLoadRequest(model_name="cats").SerializeToString()),
            grpc.StatusCode.NOT_FOUND,
            "model_not_found",
        )
