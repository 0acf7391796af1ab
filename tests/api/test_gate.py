"""Who may ask what: keys, hosts, request ids, and what is counted of each answer."""

import os
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.api.guard.access import DOCS_PATHS, HEALTH_PATHS, METRICS_PATHS, Gate
from app.api.guard.hosts import AllowedHosts
from app.api.guard.keys import ApiKeys, RawHeaders
from app.errors import InvalidSetting, Unauthorized, UnknownHost
from app.main import open_gate
from app.metrics import Metrics
from app.settings import Settings
from tests.api.conftest import OpenClient

OPEN_PATHS = [*HEALTH_PATHS, *DOCS_PATHS, *METRICS_PATHS]


def gate(metrics: Metrics | None = None) -> Gate:
    return Gate(
        keys=None,
        allowed_hosts=None,
        metrics_access="open",
        docs_access="open",
        page_access="open",
        metrics=metrics or Metrics(),
        access_log=False,
    )


def bearer(key: str) -> RawHeaders:
    return [(b"host", b"a"), (b"authorization", b"Bearer " + key.encode())]


async def test_without_keys_anyone_may_ask(client: httpx.AsyncClient) -> None:
    assert (await client.get("/models")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer second-key"},
        {"x-api-key": "second-key"},
        {"authorization": "Basic Zm9v", "x-api-key": "first-key"},
    ],
)
async def test_any_of_the_keys_opens_in_either_header(open_client: OpenClient, headers: dict[str, str]) -> None:
    client = await open_client(api_keys=SecretStr("first-key, second-key"))
    assert (await client.get("/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer first-ke"},
        {"authorization": "Bearer first-key, second-key"},
        {"authorization": "Basic first-key"},
        {"x-api-key": ""},
        {"x-api-key": "FIRST-KEY"},
        {"cookie": "x-api-key=first-key"},
    ],
)
@pytest.mark.parametrize("path", ["/models", "/predict", "/no/such/path"])
async def test_without_a_right_key_there_is_nothing_but_401(
    open_client: OpenClient, headers: dict[str, str], path: str
) -> None:
    client = await open_client(api_keys=SecretStr("first-key,second-key"))
    response = await client.get(path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert "first-ke" not in response.text


@pytest.mark.parametrize("path", OPEN_PATHS)
async def test_health_and_what_is_set_open_need_no_key_and_no_host_name(open_client: OpenClient, path: str) -> None:
    client = await open_client(api_keys=SecretStr("first-key"), allowed_hosts="example.com")
    assert (await client.get(path)).status_code == 200


async def test_docs_are_for_holders_of_a_key_or_for_nobody_where_set_so(open_client: OpenClient) -> None:
    closed = await open_client(api_keys=SecretStr("first-key"), docs_access="key")
    off = await open_client(docs_access="off")
    for path in DOCS_PATHS:
        assert (await closed.get(path)).status_code == 401
        assert (await closed.get(path, headers={"x-api-key": "first-key"})).status_code == 200
        assert (await off.get(path)).json()["code"] == "not_found"


def test_a_path_for_key_holders_without_a_key_ends_the_start() -> None:
    with pytest.raises(InvalidSetting, match=r"IMAGECLASS_METRICS_ACCESS.*IMAGECLASS_API_KEYS"):
        open_gate(Settings(metrics_access="key"), Metrics())


@pytest.mark.parametrize("given", ["", " , ", "two words", "schlüssel"])
def test_keys_that_are_none_end_the_start_instead_of_letting_anyone_in(given: str) -> None:
    with pytest.raises(InvalidSetting, match="IMAGECLASS_API_KEYS"):
        ApiKeys(given)


def test_a_key_file_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="cannot be read: No such file"):
        ApiKeys(file=tmp_path / "keys")
    (tmp_path / "keys").write_text("\n# none yet\n")
    with pytest.raises(InvalidSetting, match="holds no key"):
        ApiKeys(file=tmp_path / "keys")


def test_a_key_file_is_read_again_when_it_changes_and_a_bad_one_keeps_the_old_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("app.api.guard.keys.time.monotonic", lambda: now)
    file = tmp_path / "keys"
    file.write_text("# of the autumn\nold-key\n")
    keys = ApiKeys("always-key", file)
    keys.check(bearer("old-key"))

    file.write_text("old-key\nnew-key\n")
    with pytest.raises(Unauthorized):
        keys.check(bearer("new-key"))  # it is looked at once a second
    now += 1.0
    for key in ("old-key", "new-key", "always-key"):
        keys.check(bearer(key))

    (tmp_path / "next").write_text("new-key\n")
    (tmp_path / "next").replace(file)
    now += 1.0
    with pytest.raises(Unauthorized):
        keys.check(bearer("old-key"))

    for damage in (lambda: file.write_text(""), file.unlink, lambda: file.write_bytes(b"\xff\xfe\x00")):
        damage()
        now += 1.0
        keys.check(bearer("new-key"))

    file.write_text("last-key\n")
    os.utime(file)
    now += 1.0
    keys.check(bearer("last-key"))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.com", True),
        ("EXAMPLE.com:8000", True),
        ("example.com.", True),
        ("a.sub.example.org", True),
        ("example.org", False),
        (".example.org", False),
        ("evilexample.com", False),
        ("example.com.evil.net", False),
        ("example.com@evil.net", False),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("127.0.0.1:80", True),
        ("", False),
    ],
)
def test_hosts_are_compared_whole_and_without_their_port(host: str, allowed: bool) -> None:
    hosts = AllowedHosts("Example.com, *.example.org,[::1],127.0.0.1")
    headers = [(b"host", host.encode())]
    if allowed:
        hosts.check(headers)
    else:
        with pytest.raises(UnknownHost):
            hosts.check(headers)


def test_a_request_without_a_host_or_with_a_second_one_is_refused() -> None:
    hosts = AllowedHosts("example.com")
    for headers in ([], [(b"host", b"example.com"), (b"host", b"evil.net")]):
        with pytest.raises(UnknownHost):
            hosts.check(headers)


@pytest.mark.parametrize("names", ["", ",", "*", "a.*.com", "http://example.com"])
def test_hosts_that_are_none_end_the_start(names: str) -> None:
    with pytest.raises(InvalidSetting, match="IMAGECLASS_ALLOWED_HOSTS"):
        AllowedHosts(names)


async def test_another_host_is_refused_and_health_is_not(open_client: OpenClient) -> None:
    client = await open_client(allowed_hosts="example.com")
    refused = await client.get("/models")
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_host")
    assert (await client.get("/models", headers={"host": "example.com:80"})).status_code == 200


@pytest.mark.parametrize("path", ["/models", "/nothing"])
async def test_every_answer_carries_the_callers_request_id_or_one_of_its_own(
    client: httpx.AsyncClient, path: str
) -> None:
    assert (await client.get(path, headers={"x-request-id": "order 42"})).headers["x-request-id"] == "order 42"
    made = [(await client.get(path)).headers["x-request-id"] for _ in range(3)]
    assert len(set(made)) == 3
    assert all(made)


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a\tb", b"\x1b[31m", b"caf\xc3\xa9", b"a\x7f"])
def test_an_id_that_is_no_sensible_one_is_not_taken(given: bytes) -> None:
    assert gate().request_id([(b"x-request-id", given)]).isalnum() is False
    assert given.decode("latin-1") != gate().request_id([(b"x-request-id", given)])


def test_two_workers_make_no_id_twice() -> None:
    one, other = gate(), gate()
    made = [each.request_id([]) for each in (one, other) for _ in range(100)]
    assert len(set(made)) == 200


async def test_answers_are_counted_by_route_and_errors_by_their_code(open_client: OpenClient) -> None:
    client = await open_client()
    await client.get("/models/digits")
    await client.get("/models/cats")
    for number in range(5):
        await client.get(f"/no/such/{number}")
    await client.get("/predict")
    metrics: Metrics = client._transport.app._gate._metrics  # type: ignore[attr-defined]
    found = metrics.read()
    assert found["imageclass_requests"] == {
        ("/models/{name}", "", "", "200"): [1.0],
        ("/models/{name}", "", "", "404"): [1.0],
        ("unmatched", "", "", "404"): [5.0],
        ("/predict", "", "", "405"): [1.0],
    }
    assert found["imageclass_errors"] == {
        ("/models/{name}", "model_not_found"): [1.0],
        ("unmatched", "not_found"): [5.0],
        ("/predict", "method_not_allowed"): [1.0],
    }
    ((_, *buckets),) = (found["imageclass_stage_seconds"][labels] for labels in [("", "total")])
    assert sum(buckets) == 8
