"""Base64 as clients write it, in the JSON of both protocols."""

import base64
import textwrap
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.bodies.base64 import decode_base64

WRITTEN: dict[str, Callable[[bytes], str]] = {
    "standard": lambda data: base64.b64encode(data).decode(),
    "unpadded": lambda data: base64.b64encode(data).decode().rstrip("="),
    "URL-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "URL-safe and unpadded": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "MIME lines": lambda data: base64.encodebytes(data).decode(),
    "lines of CRLF": lambda data: "\r\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64)),
    "data URL": lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}",
    "data URL in capitals": lambda data: f"DATA:image/png;charset=x;BASE64,{base64.b64encode(data).decode()}",
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@given(data=st.binary(max_size=200))
def test_what_clients_write_is_decoded(written: Callable[[bytes], str], data: bytes) -> None:
    assert decode_base64(written(data)) == data


@pytest.mark.parametrize(
    "text", ["no picture!", "A", "AAAAA", "AA=A", "====", "ÄÖÜ", "data:image/svg+xml,<svg/>", "data:", "A\0AA"]
)
def test_what_is_no_base64_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|[Pp]adding|characters|ascii"):
        decode_base64(text)


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_both_protocols_take_it(client: httpx.AsyncClient, seven: bytes, written: Callable[[bytes], str]) -> None:
    text = written(seven)
    answer = await client.post("/v1/models/digits:predict", json={"instances": [{"b64": text}]})
    assert answer.status_code == 200, answer.text
    sent = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    same = await client.post("/v2/models/digits/infer", json=sent)
    assert same.status_code == 200, same.text
    assert same.json()["outputs"][0]["data"] == pytest.approx(answer.json()["predictions"][0], abs=1e-6)


async def test_a_data_url_of_another_encoding_is_an_error_that_names_what_is_taken(
    client: httpx.AsyncClient, seven: bytes
) -> None:
    text = f"data:image/png,{quote(seven)}"
    answer = await client.post("/v1/models/digits:predict", json={"instances": [{"b64": text}]})
    assert answer.status_code == 400
    assert "standard or URL-safe, or a data URL of it" in answer.json()["error"]
    sent = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    assert "standard or URL-safe, or a data URL of it" in (await client.post("/v2/models/digits/infer", json=sent)).text
