"""What GET / serves, to whom, and how large it is; tests/end_to_end/test_page.py opens it in a browser."""

import gzip
import re
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.api.guard.access import PAGE_PATHS
from app.contract.bundle import open_bundle
from tests.api.conftest import OpenClient

_MOST_BYTES = 80_000
KEY = {"x-api-key": "first-key"}
SAMPLES = ["/page/samples/digits", "/page/samples/digits/1/0"]


async def test_the_page_and_all_that_it_loads_come_from_the_service_and_are_small(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = {httpx.URL("http://service/").join(each).path for each in re.findall(r'(?:src|href)="([^"]+)"', page.text)}
    assert loaded - {"/docs"} == {*PAGE_PATHS} - {"/", "/page/service.json"}
    answers = [await client.get(path) for path in PAGE_PATHS]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(len(gzip.compress(answer.content)) for answer in answers) <= _MOST_BYTES


@pytest.mark.parametrize("path", PAGE_PATHS)
async def test_a_browser_may_run_nothing_inline_and_ask_nobody_else(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script>|<style>|\sstyle=|\son\w+=", answer.text if path == "/" else "")


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/samples/digits/1/0"])
async def test_a_browser_that_has_it_is_sent_no_more_than_that(open_client: OpenClient, path: str) -> None:
    client = await open_client(page_samples=True)
    first = await client.get(path)
    assert first.headers["cache-control"] == "private, no-cache"
    again = await client.get(path, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await client.get(path, headers={"if-none-match": '"other"'})).content == first.content


async def test_the_page_is_for_holders_of_a_key_or_for_nobody_if_set_so(open_client: OpenClient) -> None:
    opened = await open_client(api_keys=SecretStr("first-key"), allowed_hosts="example.com")
    closed = await open_client(api_keys=SecretStr("first-key"), page_access="key")
    off = await open_client(page_access="off", page_samples=True)
    for path in PAGE_PATHS:
        assert (await opened.get(path)).status_code == 200
        assert (await closed.get(path)).status_code == 401
        assert (await closed.get(path, headers=KEY)).status_code == 200
    for path in [*PAGE_PATHS, *SAMPLES]:
        assert (await off.get(path)).json()["code"] == "not_found"


async def test_samples_are_the_golden_pictures_and_only_on_request(
    open_client: OpenClient, trained_store: Path
) -> None:
    client = await open_client(page_samples=True)
    bundle = open_bundle(trained_store / "digits" / "1")
    samples = (await client.get("/page/samples/digits")).json()["samples"]
    assert [sample["label"] for sample in samples] == [picture.label for picture in bundle.manifest.golden]
    pictures = [await client.get(f"/{sample['picture']}") for sample in samples]
    assert tuple(picture.content for picture in pictures) == bundle.golden.encoded
    assert {picture.headers["content-type"] for picture in pictures} == {"image/png"}
    assert {picture.headers["cross-origin-resource-policy"] for picture in pictures} == {"same-origin"}
    for path in ("cats", "digits/2/0", f"digits/1/{len(samples)}", "digits/1/-1"):
        assert (await client.get(f"/page/samples/{path}")).status_code == 404
    without = await open_client()
    assert (await without.get("/page/service.json")).json()["samples"] is False
    for path in SAMPLES:
        assert (await without.get(path)).json()["code"] == "not_found"


async def test_samples_are_for_whoever_may_ask_the_models(open_client: OpenClient) -> None:
    client = await open_client(api_keys=SecretStr("first-key"), page_samples=True)
    for path in SAMPLES:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=KEY)).status_code == 200


async def test_the_page_is_told_what_there_is(open_client: OpenClient) -> None:
    client = await open_client(model="digits", docs_access="off", accepted_formats="png,jpeg")
    assert (await client.get("/page/service.json")).json() == {
        "model": "digits",
        "docs": False,
        "explanations": True,
        "samples": False,
        "formats": ["png", "jpeg"],
    }
