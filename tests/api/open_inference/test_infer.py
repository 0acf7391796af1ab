"""The protocol over HTTP, as its clients send it: without a content type; keys, limits and errors are as elsewhere."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from app.api.protocols.open_inference.questions import JSON_LENGTH_HEADER
from app.api.protocols.open_inference.schemas import InferAnswer
from app.api.protocols.open_inference.tensors import bytes_to_binary
from app.contract.bundle import open_bundle
from app.contract.preprocessing import preprocess
from tests.api.conftest import OpenClient
from tests.api.test_predict import assert_error

INFER = "/v2/models/digits/infer"


@pytest.fixture
def pictures(mnist_pictures: list[tuple[Path, str]]) -> list[bytes]:
    return [file.read_bytes() for file, _ in mnist_pictures]


@pytest.fixture
def tensor(trained_store: Path, pictures: list[bytes]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    spec = open_bundle(trained_store / "digits" / "1").manifest.preprocessing
    return np.stack([preprocess(picture, spec) for picture in pictures])


def request(binary: bytes, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    """An inference request with binary data, as arguments of `post`."""
    sent = {"name": "image", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(binary)}}
    head = json.dumps({"inputs": [sent], **more}).encode()
    return {"content": head + binary, "headers": {JSON_LENGTH_HEADER: str(len(head))}}


def encoded(pictures: list[bytes], **more: Any) -> dict[str, Any]:
    return request(bytes_to_binary(pictures), "BYTES", [len(pictures)], **more)


def probabilities_of(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    length = response.headers.get(JSON_LENGTH_HEADER)
    (output,) = InferAnswer.model_validate_json(response.content[: None if length is None else int(length)]).outputs
    values = output.data if length is None else np.frombuffer(response.content[int(length) :], "<f4")
    return np.array(values, np.float32).reshape(output.shape)


async def by_predict(client: httpx.AsyncClient, pictures: list[bytes]) -> Any:
    answers = [
        (await client.post("/predict", content=picture, headers={"content-type": "image/png"})).json()
        for picture in pictures
    ]
    return [list(answer["probabilities"].values()) for answer in answers]


async def test_pictures_and_pixels_in_either_form_get_what_predict_says(
    client: httpx.AsyncClient, pictures: list[bytes], tensor: Any
) -> None:
    expected = await by_predict(client, pictures[:5])
    pixels = tensor[:5]
    in_json = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist()}
    for sent in (
        encoded(pictures[:5]),
        encoded(pictures[:5], parameters={"binary_data_output": True}),
        request(pixels.tobytes(), "UINT8", list(pixels.shape)),
        {"content": json.dumps({"inputs": [in_json]})},
    ):
        np.testing.assert_allclose(probabilities_of(await client.post(INFER, **sent)), expected, atol=1e-6)


async def test_a_whole_body_is_one_tensor_and_its_answer_is_binary(
    client: httpx.AsyncClient, pictures: list[bytes], tensor: Any
) -> None:
    for content, expected in (
        (pictures[0], await by_predict(client, pictures[:1])),
        (tensor[:3].tobytes(), await by_predict(client, pictures[:3])),
    ):
        response = await client.post(INFER, content=content, headers={JSON_LENGTH_HEADER: "0"})
        assert response.headers["content-type"] == "application/octet-stream"
        np.testing.assert_allclose(probabilities_of(response), expected, atol=1e-6)


async def test_more_pictures_than_run_at_once_are_answered_in_order(
    open_client: OpenClient, pictures: list[bytes]
) -> None:
    client = await open_client(max_batch_size=16, max_batch_pictures=80)
    alone = await by_predict(client, pictures)
    np.testing.assert_allclose(probabilities_of(await client.post(INFER, **encoded(pictures))), alone, atol=1e-5)


async def test_the_version_may_be_named_and_must_be_live(client: httpx.AsyncClient, pictures: list[bytes]) -> None:
    named = await client.post("/v2/models/digits/versions/1/infer", **encoded(pictures[:1], id="order-42"))
    assert (named.json()["model_version"], named.json()["id"]) == ("1", "order-42")
    for suffix, method in (("", "GET"), ("/ready", "GET"), ("/config", "GET"), ("/infer", "POST")):
        path = f"/v2/models/digits/versions/2{suffix}"
        response = await client.request(method, path, **encoded(pictures[:1]))
        assert_error(response, 404, "model_not_found")
        assert "version 1 is" in response.json()["error"]
        assert_error(await client.request(method, f"/v2/models/cats{suffix}"), 404, "model_not_found")


async def test_classification_names_the_best_labels(client: httpx.AsyncClient, pictures: list[bytes]) -> None:
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (output,) = (await client.post(INFER, **encoded(pictures[:3], outputs=outputs))).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    for each, row in zip(output["data"][::2], await by_predict(client, pictures[:3]), strict=True):
        value, index, label = each.split(":")
        assert (int(index), label) == (int(np.argmax(row)), str(np.argmax(row)))
        assert float(value) == pytest.approx(max(row), abs=1e-6)


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (lambda good: b"no picture", 415, "unsupported_format"),
        (lambda good: good[:-40], 422, "undecodable_image"),
        (lambda good: good + bytes(5000), 413, "upload_too_large"),
    ],
)
async def test_a_bad_picture_refuses_the_request_and_is_named(
    open_client: OpenClient, pictures: list[bytes], bad: Any, status: int, code: str
) -> None:
    client = await open_client(max_upload_bytes=4000)
    response = await client.post(INFER, **encoded([*pictures[:3], bad(pictures[3]), pictures[4]]))
    assert_error(response, status, code)
    assert response.json()["error"].startswith("Picture 3, counted from 0: ")


async def test_the_limits_are_those_of_the_settings(
    open_client: OpenClient, pictures: list[bytes], tensor: Any
) -> None:
    client = await open_client(max_batch_pictures=4, max_batch_bytes=4000, max_json_values=800)
    assert_error(await client.post(INFER, **encoded(pictures[:5])), 400, "malformed_request")
    assert_error(await client.post(INFER, content=bytes(4001)), 413, "upload_too_large")
    one = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": tensor[0].reshape(-1).tolist()}
    assert (await client.post(INFER, content=json.dumps({"inputs": [one]}))).status_code == 200
    nested = {**one, "data": tensor[:1].tolist()}
    assert_error(await client.post(INFER, content=json.dumps({"inputs": [nested]})), 413, "upload_too_large")


async def test_a_deadline_may_stand_in_the_request_or_in_its_header(
    client: httpx.AsyncClient, pictures: list[bytes]
) -> None:
    sent = encoded(pictures[:3], parameters={"timeout": 1})
    assert_error(await client.post(INFER, **sent), 504, "deadline_exceeded")
    sent = encoded(pictures[:3], parameters={"timeout": 60_000_000})
    assert (await client.post(INFER, **sent)).status_code == 200
    sent["headers"]["x-request-timeout"] = "0.000001"
    assert_error(await client.post(INFER, **sent), 504, "deadline_exceeded")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({JSON_LENGTH_HEADER: "-1"}, 400, "malformed_request"),
        ({JSON_LENGTH_HEADER: "1e3"}, 400, "malformed_request"),
        ({JSON_LENGTH_HEADER: "9" * 5000}, 400, "malformed_request"),
        ({"content-encoding": "br"}, 415, "unsupported_media_type"),
    ],
)
async def test_headers_that_cannot_be_followed_are_refused(
    client: httpx.AsyncClient, pictures: list[bytes], headers: dict[str, str], status: int, code: str
) -> None:
    sent = encoded(pictures[:1])
    assert_error(await client.post(INFER, content=sent["content"], headers=headers), status, code)


async def test_what_the_model_is_can_be_asked(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2")).json()["name"] == "imageclass"
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"live": True, "ready": True}
    assert (await client.get("/v2/models/digits/ready")).json() == {"name": "digits", "ready": True}
    model = (await client.get("/v2/models/digits/versions/1")).json()
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 28, 28, 1]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]
    configuration = (await client.get("/v2/models/digits/config")).json()
    assert configuration["max_batch_size"] == 64
    assert configuration["input"][0]["dims"] == [28, 28, 1]


async def test_keys_hosts_and_request_ids_are_those_of_every_path(
    open_client: OpenClient, pictures: list[bytes]
) -> None:
    client = await open_client(api_keys=SecretStr("the-key"), allowed_hosts="service")
    assert_error(await client.post(INFER, **encoded(pictures[:1])), 401, "unauthorized")
    sent = encoded(pictures[:1])
    sent["headers"].update({"x-api-key": "the-key", "x-request-id": "order-42"})
    answer = await client.post(INFER, **sent)
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "order-42")
    sent["headers"]["host"] = "elsewhere"
    assert_error(await client.post(INFER, **sent), 400, "unknown_host")
    assert (await client.get("/v2/health/ready")).status_code == 200
    assert_error(await client.get("/v2/nothing", headers={"x-api-key": "the-key"}), 404, "not_found")


async def test_what_is_answered_is_counted_with_its_model(client: httpx.AsyncClient, pictures: list[bytes]) -> None:
    await client.post(INFER, **encoded(pictures[:7]))
    page = (await client.get("/metrics")).text
    assert 'imageclass_requests_total{model="digits",route="/v2/models/{model}/infer",status="200",version="1"}' in page
    assert 'imageclass_batch_size_sum{model="digits"} 7.0' in page
