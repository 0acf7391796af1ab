"""The fast path and FastAPI's own way are one: the same bytes for the same request, errors included."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.main import create_app, load_from
from app.settings import Settings
from tests.api.conftest import client_of

SAME_ID = {"x-request-id": "same-for-both"}


@dataclass(frozen=True)
class BothWays:
    fast: httpx.AsyncClient
    long: httpx.AsyncClient

    async def post(self, path: str, **request: Any) -> httpx.Response:
        """Send the request both ways, and return the answer, which is one."""
        request["headers"] = {**SAME_ID, **request.get("headers", {})}
        by_fast, by_long = await self.fast.post(path, **request), await self.long.post(path, **request)
        assert by_fast.status_code == by_long.status_code
        assert by_fast.content == by_long.content
        assert by_fast.headers == by_long.headers
        return by_fast


@pytest.fixture
async def both_ways(trained_store: Path) -> AsyncIterator[BothWays]:
    settings = Settings(model_store=trained_store, engine="openvino", max_upload_bytes=100_000)
    app = create_app(settings, load_from(settings))

    async def long_way(scope: Scope, receive: Receive, send: Send) -> None:
        await FastAPI.__call__(app, scope, receive, send)

    async with app.router.lifespan_context(app), client_of(app) as fast, client_of(long_way) as long:
        yield BothWays(fast, long)


@pytest.mark.parametrize("query", ["", "?top_k=3", "?model=digits", "?model=digits&top_k=2", "?top_k=2&model=digits"])
async def test_a_good_request(both_ways: BothWays, data_folder: Path, query: str) -> None:
    picture = (data_folder / "7-00000.png").read_bytes()
    raw = await both_ways.post(f"/predict{query}", content=picture, headers={"content-type": "image/png"})
    assert raw.status_code == 200
    # One boundary for both: httpx would draw a new one for each request.
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="7.png"\r\n\r\n' + picture + b"\r\n--xyz--\r\n"
    )
    assert (await both_ways.post(f"/predict{query}", content=form, headers=headers)).content == raw.content


@pytest.mark.parametrize(
    ("query", "content_type", "body", "status"),
    [
        ("", "image/png", b"", 422),
        ("", "image/png", b"junk", 415),
        ("", "image/png", b"\x89PNG\r\n\x1a\n", 422),
        ("", "image/png", b"x" * 100_001, 413),
        ("", "text/plain", b"junk", 415),
        ("", "multipart/form-data", b"junk", 400),
        ("", "multipart/form-data; boundary=xyz", b"junk", 400),
        ("?model=cats", "image/png", b"junk", 404),
        ("?model=", "image/png", b"junk", 404),
        ("?model=%C3%A9", "image/png", b"junk", 404),
        ("?top_k=0", "image/png", b"junk", 400),
        ("?top_k=x", "image/png", b"junk", 400),
        ("?top_k=1&top_k=2", "image/png", b"junk", 415),
        ("?something=else", "image/png", b"junk", 415),
    ],
)
async def test_a_bad_request(both_ways: BothWays, query: str, content_type: str, body: bytes, status: int) -> None:
    answer = await both_ways.post(f"/predict{query}", content=body, headers={"content-type": content_type})
    assert answer.status_code == status


async def test_a_defect_of_the_service_is_500_without_a_word_about_its_inside(
    both_ways: BothWays, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: bytes) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("app.serving.classifier.read_header", broken)
    answer = await both_ways.post("/predict", content=b"junk", headers={"content-type": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
