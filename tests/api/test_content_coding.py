"""Compressed bodies: what the protocols' clients send is inflated, within the limits and without holding others up."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive

from app.api.bodies.content_coding import SLICE_BYTES, Inflater, inflater_of
from app.api.bodies.uploads import read_body
from app.errors import MalformedRequest, UploadTooLarge
from tests.api.conftest import OpenClient
from tests.api.open_inference.test_infer import INFER, encoded
from tests.api.test_predict import assert_error

PREDICT = "/v1/models/digits:predict"


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def in_members(data: bytes) -> bytes:
    return gzip.compress(data[:10]) + gzip.compress(b"") + gzip.compress(data[10:])


Compress = Callable[[bytes], bytes]
WAYS: list[tuple[str, Compress]] = [
    ("gzip", gzip.compress),
    ("GZip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("gzip", in_members),
    ("deflate", zlib.compress),
    ("deflate", lambda data: zlib.compress(data, 0)),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("identity, gzip", gzip.compress),
    ("", bytes),
]


def inflated(coding: str, *chunks: bytes) -> bytes:
    inflater = inflater_of(coding)
    assert inflater is not None
    whole = b"".join(piece for chunk in chunks for piece in inflater.inflate(chunk))
    inflater.end()
    return whole


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


def in_json(seven: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(seven).decode()}]}).encode()


@pytest.mark.parametrize(("coding", "compress"), WAYS)
async def test_a_compressed_request_gets_the_answer_of_the_plain_one(
    client: httpx.AsyncClient, seven: bytes, coding: str, compress: Compress
) -> None:
    headers = {"content-encoding": coding}
    plain = await client.post(PREDICT, content=in_json(seven))
    assert plain.status_code == 200
    assert (await client.post(PREDICT, content=compress(in_json(seven)), headers=headers)).content == plain.content

    sent = encoded([seven, seven])  # the length of its JSON is that before compression
    plain = await client.post(INFER, **sent)
    assert plain.status_code == 200
    compressed = compress(sent["content"])
    answer = await client.post(INFER, content=compressed, headers={**sent["headers"], **headers})
    assert answer.content == plain.content

    index = await client.post("/v2/repository/index", content=compress(b'{"ready": true}'), headers=headers)
    assert [model["name"] for model in index.json()] == ["digits"]


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip,deflate", "gzip;q=1"])
async def test_another_coding_is_415_with_those_that_are_taken(client: httpx.AsyncClient, coding: str) -> None:
    repository = "/v2/repository"
    for path in (
        *(PREDICT, "/v1/models/digits:classify", "/v1/models/digits/versions/1:predict", INFER),
        *(f"{repository}/index", f"{repository}/models/digits/load", f"{repository}/models/digits/unload"),
    ):
        answer = await client.post(path, content=gzip.compress(b"{}"), headers={"content-encoding": coding})
        assert_error(answer, 415, "unsupported_media_type")
        assert answer.headers["accept-encoding"] == "gzip, deflate"
        assert coding.partition(",")[0] in answer.json()["error"]


async def test_codings_in_two_lines_are_two_codings(client: httpx.AsyncClient) -> None:
    twice = gzip.compress(gzip.compress(b"{}"))
    answer = await client.post(PREDICT, content=twice, headers=[("content-encoding", "gzip")] * 2)
    assert_error(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b""),
        ("gzip", b"{}"),
        ("gzip", gzip.compress(b"{}")[:-1]),
        ("gzip", gzip.compress(b"{}")[:5]),
        ("gzip", gzip.compress(b"{}") + b"garbage"),
        ("gzip", gzip.compress(b"{}") + bytes(10)),
        ("gzip", gzip.compress(b"{}") + gzip.compress(b"{}")[:-4]),
        ("gzip", gzip.compress(b"{}")[:-8] + bytes(8)),
        ("gzip", zlib.compress(b"{}")),
        ("gzip", gzip.compress(b"") * 10_001),
        ("deflate", b""),
        ("deflate", b"\xff\xff"),
        ("deflate", zlib.compress(b"{}")[:-1]),
        ("deflate", zlib.compress(b"{}")[:-4] + bytes(4)),
        ("deflate", zlib.compress(b"{}") + b"garbage"),
        ("deflate", zlib.compress(b"{}") * 2),
        ("deflate", raw_deflate(b"{}") + b"garbage"),
        ("deflate", gzip.compress(b"{}")),
    ],
)
async def test_what_is_not_in_the_coding_that_it_names_is_400(
    client: httpx.AsyncClient, coding: str, body: bytes
) -> None:
    for path in (PREDICT, INFER, "/v2/repository/index"):
        answer = await client.post(path, content=body, headers={"content-encoding": coding})
        assert_error(answer, 400, "malformed_request")
        assert f"not valid {coding}" in answer.json()["error"]


async def test_the_limit_is_on_what_the_body_becomes(open_client: OpenClient, seven: bytes) -> None:
    client = await open_client(max_batch_bytes=4096)
    headers = {"content-encoding": "gzip"}
    fits = in_json(seven) + b" " * (4096 - len(in_json(seven)))
    assert (await client.post(PREDICT, content=gzip.compress(fits), headers=headers)).status_code == 200
    answer = await client.post(PREDICT, content=gzip.compress(fits + b" "), headers=headers)
    assert_error(answer, 413, "upload_too_large")
    assert "4,096 bytes" in answer.json()["error"]


async def test_bytes_that_become_nothing_are_bounded_too(open_client: OpenClient) -> None:
    client = await open_client(max_batch_bytes=4096)

    async def nothing() -> AsyncIterator[bytes]:
        stream = zlib.compressobj()
        while True:
            yield stream.compress(b"") + stream.flush(zlib.Z_FULL_FLUSH)

    answer = await client.post(PREDICT, content=nothing(), headers={"content-encoding": "deflate"})
    assert_error(answer, 413, "upload_too_large")


def bomb(megabytes: int) -> bytes:
    return gzip.compress(bytes(megabytes << 20))


def sending(*chunks: bytes) -> Receive:
    messages: Iterator[Message] = iter(
        {"type": "http.request", "body": chunk, "more_body": index < len(chunks)}
        for index, chunk in enumerate(chunks, 1)
    )

    async def receive() -> Message:
        return next(messages)

    return receive


async def test_a_bomb_is_refused_at_the_limit_and_not_inflated_further() -> None:
    pieces: list[int] = []

    class Watched(Inflater):
        def inflate(self, data: bytes) -> Iterator[bytes]:
            for piece in super().inflate(data):
                pieces.append(len(piece))
                yield piece

    counted: list[int] = []
    with pytest.raises(UploadTooLarge, match=r"inflated, is larger than 1,000,000 bytes"):
        await read_body(sending(bomb(50)), "", 1_000_000, counted.append, Watched("gzip"))
    assert sum(counted) <= 1_000_000
    assert sum(pieces) <= 1_000_000 + SLICE_BYTES


async def test_the_inflated_bytes_are_counted_and_others_get_their_turn_in_between() -> None:
    counted: list[int] = []
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(sum(counted))
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    body = await read_body(sending(bomb(4)), "", 10 << 20, counted.append, Inflater("gzip"))
    beside.cancel()
    assert body == bytes(4 << 20)
    assert sum(counted) == 4 << 20
    assert max(later - earlier for earlier, later in pairwise(turns)) <= 4 * SLICE_BYTES


async def test_inflated_bytes_are_held_by_the_admission_as_plain_ones_are(
    open_client: OpenClient, seven: bytes
) -> None:
    client = await open_client(max_pending_bytes=300_000)
    admission = client._transport.app.state.inference.admission  # type: ignore[attr-defined]
    large = in_json(seven) + b" " * 400_000
    compressed = gzip.compress(large)
    assert len(compressed) < 2000
    gzipped = {"content-encoding": "gzip"}
    with admission.receive() as another:
        another(10_000)
        assert_error(await client.post(PREDICT, content=large), 503, "overloaded")
        assert_error(await client.post(PREDICT, content=compressed, headers=gzipped), 503, "overloaded")
        assert admission.pending_bytes == 10_000
    # If nobody else holds any, a body may be as large as another limit allows.
    assert (await client.post(PREDICT, content=large)).status_code == 200
    assert (await client.post(PREDICT, content=compressed, headers=gzipped)).status_code == 200
    assert admission.pending_bytes == 0


@given(
    st.sampled_from([(coding, compress) for coding, compress in WAYS if coding in ("gzip", "deflate")]),
    st.binary(max_size=300).flatmap(lambda data: st.sampled_from([data, data * 1000])),
    st.integers(1, 50),
)
def test_whatever_was_compressed_comes_back_in_whatever_pieces_it_arrives(
    way: tuple[str, Compress], data: bytes, size: int
) -> None:
    coding, compress = way
    body = compress(data)
    assert inflated(coding, *(body[start : start + size] for start in range(0, len(body), size))) == data


@given(st.sampled_from(["gzip", "deflate"]), st.data())
def test_a_damaged_stream_is_told_or_inflated_within_its_slices(coding: str, data: st.DataObject) -> None:
    body = bytearray((gzip.compress if coding == "gzip" else zlib.compress)(b"some text, " * 20))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    inflater: Any = inflater_of(coding)
    try:
        assert all(len(piece) <= SLICE_BYTES for piece in inflater.inflate(bytes(body)))
        inflater.end()
    except MalformedRequest as exc:
        assert str(exc).endswith(".")  # noqa: PT017 - some damage does not show
