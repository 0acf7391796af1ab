"""The documentation page, as a browser without the internet sees it."""

import re

import httpx
import pytest
from pydantic import SecretStr

from tests.api.conftest import OpenClient


async def test_all_that_the_page_loads_comes_from_the_service_itself(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded == ["data:,", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]
    for address, media_type in zip(loaded[1:], ("text/css", "text/javascript", "text/javascript"), strict=True):
        answer = await client.get(httpx.URL("http://service/docs").join(address).path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(media_type)


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js"])
async def test_a_browser_is_told_to_call_nothing_else(client: httpx.AsyncClient, path: str) -> None:
    policy = dict(
        rule.split(" ", 1) for rule in (await client.get(path)).headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for rule in ("script-src", "connect-src"):
        assert policy[rule] == "'self'"
    assert "http" not in str(policy)


async def test_swagger_ui_asks_no_validator_of_its_makers(client: httpx.AsyncClient) -> None:
    start = (await client.get("/docs/start.js")).text
    assert "validatorUrl: null" in start
    assert '"openapi.json"' in start
    assert "//" not in start


async def test_the_document_says_how_a_key_is_sent_where_keys_are_needed(open_client: OpenClient) -> None:
    without = (await (await open_client()).get("/openapi.json")).json()
    assert "securitySchemes" not in without["components"]
    client = await open_client(api_keys=SecretStr("first-key"), metrics_access="key")
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {
        "Authorization": {"type": "http", "scheme": "bearer"},
        "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    either: list[dict[str, list[str]]] = [{"Authorization": []}, {"X-API-Key": []}]
    assert document["paths"]["/predict"]["post"]["security"] == either
    assert document["paths"]["/metrics"]["get"]["security"] == either
    assert document["paths"]["/health"]["get"]["security"] == []
