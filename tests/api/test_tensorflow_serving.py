"""TensorFlow Serving's interface refuses what it cannot read in one sentence, with the status of the error table."""

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.conftest import OpenClient

PATH = "/v1/models/digits"


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def picture(value: Any = 0) -> list[Any]:
    return np.full((28, 28, 1), value).tolist()


RAGGED = [[[0]] * 28] * 27 + [[[0]] * 27]


@pytest.mark.parametrize(
    ("verb", "body", "status", "words"),
    [
        ("predict", [], 400, "JSON object"),
        ("predict", {"instances": []}, 400, "no picture"),
        ("predict", {"instances": {"image": []}}, 400, "list of pictures"),
        ("predict", {"inputs": {"b64": "AAAA"}}, 400, "one input"),
        ("predict", {"instances": [picture()], "signature_name": "other"}, 400, "no signature 'other'"),
        ("predict", {"instances": [picture(256)]}, 400, "0 to 255"),
        ("predict", {"instances": [picture(-1)]}, 400, "0 to 255"),
        ("predict", {"instances": [picture(0.5)]}, 400, "whole numbers"),
        ("predict", {"instances": [picture(True)]}, 400, "whole numbers"),
        ("predict", {"instances": [picture("0")]}, 400, "whole numbers"),
        ("predict", {"instances": [picture()[:27]]}, 400, "shape [27, 28, 1]"),
        ("predict", {"instances": [RAGGED]}, 400, "not nested evenly"),
        ("predict", {"instances": [picture(), {"b64": "AAAA"}]}, 400, "same form"),
        ("predict", {"instances": ["AAAA"]}, 400, "shape"),
        ("predict", {"instances": [{"b64": "no base64"}]}, 400, "base64"),
        ("predict", {"instances": [{"b64": 7}]}, 400, "base64"),
        ("predict", {"instances": [{"pixels": picture()}]}, 400, "one input, 'image'"),
        ("predict", {"instances": [{"image": picture(), "more": 1}]}, 400, "one input, 'image'"),
        ("predict", {"instances": [b64(b"no picture")]}, 415, "known format"),
        ("predict", {"instances": [b64(b"no picture")] * 65}, 400, "at most 64"),
        ("classify", {"examples": {}}, 400, "'examples'"),
        ("classify", {"examples": [7]}, 400, "Example 0"),
        ("classify", {"examples": [{}]}, 400, "one input"),
    ],
)
async def test_what_cannot_be_read_is_named(
    client: httpx.AsyncClient, verb: str, body: Any, status: int, words: str
) -> None:
    answer = await client.post(f"{PATH}:{verb}", json=body)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


async def test_of_several_pictures_the_one_at_fault_is_named(client: httpx.AsyncClient, data_folder: Path) -> None:
    good = b64((data_folder / "7-00000.png").read_bytes())
    cut = b64((data_folder / "7-00000.png").read_bytes()[:-40])
    answer = await client.post(f"{PATH}:predict", json={"instances": [good, cut]})
    assert (answer.status_code, answer.json()["code"]) == (422, "undecodable_image")
    assert answer.json()["error"].startswith("Picture 1")


async def test_grey_pictures_may_come_without_their_last_dimension(client: httpx.AsyncClient) -> None:
    rows = np.arange(784).reshape(28, 28) % 256
    flat = await client.post(f"{PATH}:predict", json={"instances": [rows.tolist()]})
    whole = await client.post(f"{PATH}:predict", json={"instances": [rows.reshape(28, 28, 1).tolist()]})
    assert flat.json() == whole.json()
    assert flat.status_code == 200


async def test_what_is_no_json_is_400(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"\xff"):
        assert (await client.post(f"{PATH}:predict", content=body)).status_code == 400


async def test_no_content_type_is_needed(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{PATH}:predict", content=b'{"instances": []}')
    assert "no picture" in answer.json()["error"]


async def test_the_limits_of_the_settings_hold(open_client: OpenClient, data_folder: Path) -> None:
    seven = b64((data_folder / "7-00000.png").read_bytes())
    client = await open_client(max_batch_pictures=2, max_batch_bytes=4096, max_json_values=100, max_pending=1)

    async def refused(body: Any) -> tuple[int, str]:
        answer = await client.post(f"{PATH}:predict", json=body)
        return answer.status_code, answer.json()["code"]

    assert await refused({"instances": [seven] * 3}) == (400, "malformed_request")
    assert await refused({"instances": [seven], "more": "x" * 5000}) == (413, "upload_too_large")
    assert await refused({"instances": [[0] * 200]}) == (413, "upload_too_large")
    assert await refused({"instances": [seven] * 2}) == (503, "overloaded")
    answer = await client.post(f"{PATH}:predict", json={"instances": [seven]}, headers={"x-request-timeout": "1e-9"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
