"""Every answer that classifies says where its time went."""

import base64
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.server_timing import of_many, of_one
from app.serving.batcher import RowFuture
from tests.api.conftest import OpenClient

STAGES = ["read", "decode", "queue", "infer"]


def durations(answer: httpx.Response) -> dict[str, float]:
    """The milliseconds by stage. The form is the grammar of W3C Server Timing, as far as it is used here."""
    entries = [re.fullmatch(r"([a-z]+);dur=([0-9]+\.[0-9]{3})", entry) for entry in timing_of(answer).split(", ")]
    return {entry[1]: float(entry[2]) for entry in entries if entry}


def timing_of(answer: httpx.Response) -> str:
    return str(answer.headers["server-timing"])


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.mark.parametrize("where", [{}, {"inline_decode_pixels": 0, "inference_place": "thread"}])
async def test_every_road_tells_its_stages(open_client: OpenClient, seven: bytes, where: dict[str, Any]) -> None:
    client = await open_client(**where)
    text = base64.b64encode(seven).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    answers = [
        await client.post("/predict", content=seven, headers={"content-type": "image/png"}),
        await client.post("/predict/batch", files=[("files", seven)] * 3),
        await client.post("/v1/models/digits:predict", json={"instances": [{"b64": text}]}),
        await client.post("/v2/models/digits/infer", json={"inputs": [tensor]}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        found = durations(answer)
        assert list(found) == STAGES
        assert found["decode"] > 0
        assert found["infer"] > 0


async def test_what_came_as_pixels_was_not_decoded(client: httpx.AsyncClient) -> None:
    pixels = [[[0]] * 28] * 28
    answer = await client.post("/v1/models/digits:predict", json={"instances": [pixels]})
    assert durations(answer)["decode"] == 0


async def test_an_error_has_no_stages(client: httpx.AsyncClient) -> None:
    answer = await client.post("/predict", content=b"junk", headers={"content-type": "image/png"})
    assert "server-timing" not in answer.headers


async def test_of_many_pictures_decoding_adds_up_and_the_longest_wait_and_batch_count() -> None:
    first, second = RowFuture(), RowFuture()
    first.prepared_s, first.queued_s, first.ran_s = 0.001, 0.004, 0.002
    second.prepared_s, second.queued_s, second.ran_s = 0.003, 0.002, 0.005
    assert of_many([first, second], 0.01) == b"read;dur=10.000, decode;dur=4.000, queue;dur=4.000, infer;dur=5.000"
    assert of_one(first, 0.0005) == b"read;dur=0.500, decode;dur=1.000, queue;dur=4.000, infer;dur=2.000"
