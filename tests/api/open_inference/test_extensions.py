"""Triton's extensions: statistics from what was really counted, and the index of the store."""

import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.protocols.open_inference.schemas import ModelStatistics
from app.api.protocols.open_inference.statistics import model_statistics
from app.main import open_catalogue
from app.metrics import ROW_BYTES, Metrics
from app.settings import Settings
from tests.api.conftest import OpenClient
from tests.api.open_inference.test_infer import INFER, encoded
from tests.api.test_predict import assert_error
from tests.conftest import Load


async def statistics(client: httpx.AsyncClient, path: str = "/v2/models/digits/stats") -> Any:
    answer = ModelStatistics.model_validate_json((await client.get(path)).content)
    (found,) = answer.model_stats
    return found


async def test_statistics_count_what_was_classified_by_every_road(
    client: httpx.AsyncClient, mnist_pictures: list[tuple[Path, str]]
) -> None:
    pictures = [file.read_bytes() for file, _ in mnist_pictures[:7]]
    before = await statistics(client)
    assert (before.inference_count, before.execution_count, before.last_inference) == (0, 0, 0)
    began = time.time_ns()
    assert (await client.post(INFER, **encoded(pictures))).status_code == 200
    assert (
        await client.post("/predict", content=pictures[0], headers={"content-type": "image/png"})
    ).status_code == 200
    assert (await client.post(INFER, **encoded([b"no picture"]))).status_code == 415
    taken = time.time_ns() - began
    found = await statistics(client)
    assert found.inference_count == 8
    assert found.execution_count == sum(batch.compute_infer.count for batch in found.batch_stats) >= 2
    assert sum(batch.batch_size * batch.compute_infer.count for batch in found.batch_stats) >= 8
    done = found.inference_stats
    assert (done.success.count, done.fail.count) == (2, 1)
    assert (done.queue.count, done.compute_input.count) == (8, 8)
    assert 0 < done.compute_infer.ns == sum(batch.compute_infer.ns for batch in found.batch_stats)
    assert done.compute_input.ns + done.compute_infer.ns < done.success.ns < taken
    assert began // 1_000_000 <= found.last_inference <= time.time_ns() // 1_000_000
    assert await statistics(client, "/v2/models/stats") == found
    assert await statistics(client, "/v2/models/digits/versions/1/stats") == found
    assert_error(await client.get("/v2/models/cats/stats"), 404, "model_not_found")


async def test_statistics_are_those_of_all_workers(load: Load, trained_store: Path) -> None:
    rows = [bytearray(ROW_BYTES) for _ in range(2)]
    settings = Settings(model_store=trained_store, engine="openvino")
    for worker in range(2):
        Metrics(rows, worker).version_pictures("digits", "1").add(3)
        Metrics(rows, worker).version_batch_seconds("digits", "1", 4).observe(0.5)
    async with open_catalogue(settings, load(settings), Metrics()) as catalogue:
        (found,) = model_statistics(Metrics(rows), catalogue.models)["model_stats"]
    assert found["inference_count"] == 6
    (batch,) = found["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]) == (4, {"count": 2, "ns": 1_000_000_000})


async def test_the_index_has_every_version_and_says_which_is_served(
    copy_of_store: Path, open_client: OpenClient
) -> None:
    shutil.copytree(copy_of_store / "digits" / "1", copy_of_store / "digits" / "2")  # its manifest says 1
    client = await open_client(model_store=copy_of_store)
    served = {"name": "digits", "version": "1", "state": "READY", "reason": ""}
    refused = {"name": "digits", "version": "2", "state": "UNAVAILABLE", "reason": "bundle_tampered"}
    assert (await client.post("/v2/repository/index")).json() == [served, refused]
    assert (await client.post("/v2/repository/index", content=b"{}")).json() == [served, refused]
    assert (await client.post("/v2/repository/index", content=b'{"ready": true}')).json() == [served]
    shutil.rmtree(copy_of_store)
    assert (await client.post("/v2/repository/index")).json() == [served]


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"ready": 3}', b'{"ready": []}', b"{", b'"ready"'])
async def test_an_index_request_that_says_something_else_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert_error(await client.post("/v2/repository/index", content=body), 400, "malformed_request")
