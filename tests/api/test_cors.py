"""What a page of another origin may do."""

import httpx
import pytest
from pydantic import SecretStr

from app.api.guard.cors import cors_origins
from app.errors import InvalidSetting
from tests.api.conftest import OpenClient

PAGE = "https://shop.example.com"


def preflight(origin: str = PAGE, method: str = "POST", headers: str = "authorization,content-type") -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }


async def test_by_default_no_page_of_another_origin_is_let_in(client: httpx.AsyncClient) -> None:
    asked = await client.options("/predict", headers=preflight())
    assert (asked.status_code, asked.json()["code"]) == (405, "method_not_allowed")
    for answer in (asked, await client.get("/models", headers={"origin": PAGE})):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_page_that_is_allowed_may_ask_with_a_key_and_read_errors_and_ids(open_client: OpenClient) -> None:
    client = await open_client(cors_origins=f"{PAGE},http://localhost:3000", api_keys=SecretStr("first-key"))
    asked = await client.options("/predict", headers=preflight())
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert {"Authorization", "X-API-Key", "Content-Type"} <= set(
        asked.headers["access-control-allow-headers"].split(", ")
    )
    assert "access-control-allow-credentials" not in asked.headers
    for headers, status in (({}, 401), ({"x-api-key": "first-key"}, 200)):
        answer = await client.get("/models", headers={"origin": PAGE, **headers})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"X-Request-ID", "Server-Timing", "Retry-After"} <= set(exposed)
        assert "Origin" in answer.headers["vary"]


async def test_another_page_is_told_nothing_that_would_let_it_in(open_client: OpenClient) -> None:
    client = await open_client(cors_origins=PAGE)
    for origin in ("https://evil.example.net", "null", "http://shop.example.com", f"{PAGE}.evil.net"):
        for answer in (
            await client.options("/predict", headers=preflight(origin)),
            await client.get("/models", headers={"origin": origin}),
        ):
            assert "access-control-allow-origin" not in answer.headers


async def test_a_star_lets_any_page_in(open_client: OpenClient) -> None:
    client = await open_client(cors_origins="*")
    assert (await client.get("/models", headers={"origin": PAGE})).headers["access-control-allow-origin"] == "*"


async def test_a_preflight_does_not_open_what_follows_it(open_client: OpenClient) -> None:
    client = await open_client(cors_origins=PAGE, api_keys=SecretStr("first-key"))
    assert (await client.options("/models", headers={"origin": PAGE})).status_code == 401


async def test_a_defect_is_readable_from_a_page_too(open_client: OpenClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await open_client(cors_origins=PAGE)
    monkeypatch.setattr("app.api.routes.models._summary", lambda _: 1 / 0)
    answer = await client.get("/models", headers={"origin": PAGE})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origins", ["", ",", "example.com", "https://example.com/", "https://a.com/b", "ftp://a.com"])
def test_origins_that_are_none_end_the_start(origins: str) -> None:
    with pytest.raises(InvalidSetting, match="IMAGECLASS_CORS_ORIGINS"):
        cors_origins(origins)
